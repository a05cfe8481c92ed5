// Package handoff lets a daemon be replaced while it runs: no connection is refused, no acknowledged write is lost, two
// processes never write the same data, and a bad new binary undoes itself. It links libhandoff.
package handoff
