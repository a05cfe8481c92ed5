// Package handoff lets a daemon be replaced by a new process while it runs: no connection is refused, no acknowledged write is
// lost, two processes never write the same data, and a bad new binary undoes itself. The daemon runs under the program "handoff
// run", and is replaced by "handoff upgrade"; without them the package behaves as if it were absent.
//
// One main serves a cold start and a successor, in this order:
//
//	h, err := handoff.Open()                    first of all: who am I?
//	h.OnDrain(…); h.OnSeal(…); h.OnResume(…)    what to do when somebody comes to replace us
//	listener, err := h.Listener("http")         ErrNotGiven: bind your own
//	err = h.WaitForBegin(ctx)                   the lock is held: open the data
//	err = h.Ready(ctx, handoff.Readiness{})     committed: accept, on goroutines of yours
//	end, err := h.Serve(ctx)                    runs the hooks, until the end
//	if end == handoff.Replaced {
//		os.Exit(0)                              write nothing: the data is not yours
//	}
//
// Hooks are ordinary functions: they run on the goroutine that called Serve, and not inside C, so they may block, start goroutines
// and panic as any other. While nothing happens, Serve is a goroutine that waits in the runtime's poller, and needs no thread.
//
// # Signals
//
// The C library has no signal handler. The context of [os/signal.NotifyContext], given to all calls, does what is right for SIGTERM: a
// start is given up, and Serve lets a handoff come to its end, or undoes it, before it returns [Stopped].
//
// # Connections and state
//
// The drain or the seal may give the successor what it would lose: connections, each with the bytes that were read of it and not
// executed ([PutConnection]), and state ([PutState], [PutStateFile]). The successor has the state from WaitForBegin on, and the
// connections from Ready on. The incumbent keeps all of it, untouched, until it is known who serves; so an undo loses nothing. Only a successor
// that has committed and died may have used them: [AfterCommit] says that to a resume, which then closes them.
//
// # Probation
//
// With "handoff upgrade --probation" the incumbent is the reserve of its successor for a while: it is told by [Handoff.OnParked], where it closes
// the connections that it gave, and then it is replaced, or resumes. To the successor the end is told by [Handoff.OnConfirmed].
//
// # Overlap mode
//
// A daemon with the option [Overlap] serves until its successor serves: nobody waits, but both have the data at once. Its only hook is
// the drain, which comes after the commit.
//
// # HTTP
//
// [net/http.Server.Shutdown] closes connections without an answer; package handoff/web moves them to the successor, and closes by itself those
// that it must not go on with.
//
// # Errors
//
// Each error of the C library is an [*Error] with a [Code]; the codes are for [errors.Is].
//
// # Linking
//
// The package finds libhandoff by pkg-config, as "handoff". README.md beside it says how to use one that is not installed.
package handoff
