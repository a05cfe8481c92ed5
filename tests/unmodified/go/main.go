// A web server as people write it for systemd: its listener by LISTEN_FDS, READY=1 to NOTIFY_SOCKET, a graceful end on SIGTERM.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

func main() {
	if os.Getenv("BROKEN") != "" {
		log.Fatal("its settings are broken")
	}
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		log.Fatal("LISTEN_PID is another's")
	}
	listener, err := net.FileListener(os.NewFile(3, os.Getenv("LISTEN_FDNAMES")))
	check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, os.Getpid())
	})}
	// Of each connection that was accepted: Shutdown closes one whose request it reads too late, without an answer.
	var open sync.WaitGroup
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()

	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	connection, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	check(err)
	_, err = connection.Write([]byte("READY=1"))
	check(err)

	<-ctx.Done()
	server.SetKeepAlivesEnabled(false)
	check(listener.Close())
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		log.Fatal(err)
	}
	open.Wait()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
