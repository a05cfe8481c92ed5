module web

go 1.21

require handoff v0.0.0

replace handoff => ../../../bindings/go
