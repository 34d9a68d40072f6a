// Images builds Wattlet's container images: each program for three platforms, on nothing, with the list of what is in it. It needs
// Go and this repository; no daemon, no base image, no network, no root. The same source gives the same bytes.
//
//	images [-version V] [-only NAME,...] [-platform OS/ARCH] DIR
//
// writes DIR/NAME.tar, an OCI layout for containerd, podman, skopeo and others, and DIR/NAME-OS-ARCH.cdx.json, the modules in each
// binary as CycloneDX, which are also in the tar as referrers of the images.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1) //nolint:forbidigo // a command
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flag.NewFlagSet("images", flag.ContinueOnError)
	version := fs.String("version", "unknown", "version of programs and images; also their tag, if it can be one")
	repository := fs.String("repository", "localhost", "what stands before the images' names")
	only := fs.String("only", "", "names of the images to build, separated by commas; default all")
	platform := fs.String("platform", "", "the only platform to build for, as linux/amd64; default all")
	cache := fs.String("cache", "", "directory to keep binaries in; default one that is removed at the end")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return fmt.Errorf("one directory to write to is needed, %d arguments are given", fs.NArg())
	}
	dir := *cache
	if dir == "" {
		if dir, err = os.MkdirTemp("", "images"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	b, err := newBuilder(ctx, dir, *version)
	if err != nil {
		return err
	}
	if *platform != "" {
		b.platforms = slices.DeleteFunc(b.platforms, func(p v1.Platform) bool { return p.String() != *platform })
		if len(b.platforms) == 0 {
			return fmt.Errorf("no images are built for %q, only for %v", *platform, platforms)
		}
	}
	all, err := b.programs(ctx)
	if err != nil {
		return err
	}
	if *only != "" {
		wanted := strings.Split(*only, ",")
		for _, name := range wanted {
			if !slices.ContainsFunc(all, func(p program) bool { return p.name == name }) {
				return fmt.Errorf("no image is named %q", name)
			}
		}
		all = slices.DeleteFunc(all, func(p program) bool { return !slices.Contains(wanted, p.name) })
	}
	if err := os.MkdirAll(fs.Arg(0), 0o755); err != nil { //nolint:gosec // images are for all to read
		return err
	}
	for _, p := range all {
		made, err := b.image(ctx, p, *repository, fs.Arg(0))
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(out, "%s  %s  %.1f MB\n", made.digest, made.reference, float64(made.size)/1e6)
	}
	return nil
}
