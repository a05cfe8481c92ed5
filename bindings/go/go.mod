module handoff

go 1.21
