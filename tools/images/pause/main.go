// Pause holds the namespaces of a pod: it waits for orphans of the pod's processes, and for the signal to end.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is set when the image is built.
var version = "unknown"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println("pause", version) //nolint:forbidigo // a command
		return
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
