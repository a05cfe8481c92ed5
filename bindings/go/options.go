package handoff

// #include "shim.h"
import "C"

import "log/slog"

// An Option changes how a handle is made. What is not named here has no use in Go: there are no forked children that
// go on without exec, and so no reason to wait for them or not.
type Option func(*settings) error

type settings struct {
	c    *C.handoff_config
	sink *sink
}

// ControlPath is where the control socket is made. Default: $HANDOFF_CONTROL; without both there is none, and the daemon
// can not be replaced.
func ControlPath(path string) Option { return text(C.HANDOFF_OPT_CONTROL_PATH, path) }

// DataDir is the directory whose lock says who may write. Default: $HANDOFF_DATA_DIR; without both, lock and gate are beside
// the control path.
func DataDir(path string) Option { return text(C.HANDOFF_OPT_DATA_DIR, path) }

// BuildID says which build this is, for people, in at most 256 bytes. Default: the ELF build id of the executable, which
// a program in Go may not have.
func BuildID(id string) Option { return text(C.HANDOFF_OPT_BUILD_ID, id) }

// Overlap lets the successor serve before this process stops, so that somebody accepts at every instant. Both hold the data then:
// there is no lock, [Handoff.WriteBegin] lets everybody in, and two that write the same data must agree on that among themselves. The
// incumbent hears of it when the successor serves, by a drain with [AfterCommit]; its end is the end of this process.
// There is no seal and no resume. Both processes must have this option.
func Overlap() Option {
	return func(s *settings) error {
		return configured(C.handoff_config_set_int(s.c, C.HANDOFF_OPT_MODES, C.HANDOFF_MODE_OVERLAP))
	}
}

// NetworkDataDir accepts a data directory on NFS and the like, whose locks may not keep other hosts out.
func NetworkDataDir() Option {
	return func(s *settings) error {
		return configured(C.handoff_config_set_int(s.c, C.HANDOFF_OPT_NETWORK_DATA_DIR, 1))
	}
}

// RequireTransfer refuses a handoff to a successor that takes neither connections nor state, before the drain. Default: it goes on,
// and what would give them returns [ErrRefused].
func RequireTransfer() Option {
	return func(s *settings) error {
		return configured(C.handoff_config_set_int(s.c, C.HANDOFF_OPT_TRANSFER, 1))
	}
}

// Logger is where the library's log goes; default: nowhere. It is called by goroutines that call this package,
// never from inside C.
func Logger(logger *slog.Logger) Option {
	return func(s *settings) error {
		s.sink = newSink(logger)
		return configured(C.handoff_go_set_log(s.c, C.uintptr_t(s.sink.handle)))
	}
}

func text(option C.int32_t, value string) Option {
	return func(s *settings) error {
		c, err := cString(value)
		if err != nil {
			return err
		}
		defer cFree(c)
		return configured(C.handoff_config_set_str(s.c, option, c))
	}
}

func configured(result C.int) error {
	if result < 0 {
		return &Error{Code(result), "handoff_config_set", "an option has a value that it can not have"}
	}
	return nil
}
