package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// platforms are those of the boards, and of the machine that a person tries things on. Sorted: their order is in the images.
var platforms = []v1.Platform{
	{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm", Variant: "v7"},
	{OS: "linux", Architecture: "arm64"},
}

// program is what an image is made of.
type program struct {
	name, about string
	// dir is the module's directory below the repository, pkg the package in it.
	dir, pkg string
	tags     string
	ports    []string
	// state is a directory that the program may write to, a volume's place.
	state string
	work  string
}

// products are the programs that are no functions.
var products = []program{
	{
		name: "wattlet", about: "Where the joules of a node go: the agent", dir: ".", pkg: "./cmd/wattlet",
		tags: "nethttpomithttp2", ports: []string{"9780/tcp"}, state: "/var/lib/wattlet",
	},
	{
		name: "wattctl", about: "Where the joules of a cluster go: the operator's tool and hub", dir: ".", pkg: "./cmd/wattctl",
		ports: []string{"9779/tcp"}, state: "/var/lib/wattlet", work: "/var/lib/wattlet",
	},
	{
		name: "pause", about: "Holds the namespaces of a pod", dir: "tools/images", pkg: "./pause",
	},
}

// builder builds programs of one checkout.
type builder struct {
	root, cache, version string
	platforms            []v1.Platform
}

func newBuilder(ctx context.Context, cache, version string) (*builder, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOMOD")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(strings.TrimSpace(string(out)))))
	if _, err := os.Stat(filepath.Join(root, "cmd", "wattlet")); err != nil {
		return nil, fmt.Errorf("run it in its own directory, as go run -C tools/images . DIR: %w", err)
	}
	if cache, err = filepath.Abs(cache); err != nil {
		return nil, err
	}
	return &builder{root, cache, version, slices.Clone(platforms)}, nil
}

// programs lists what there are images of: the products, and each command below functions/.
func (b *builder) programs(ctx context.Context) ([]program, error) {
	out := slices.Clone(products)
	if _, err := os.Stat(filepath.Join(b.root, "functions")); err != nil {
		return out, nil
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-find", "-f", `{{if eq .Name "main"}}{{.ImportPath}} {{.Doc}}{{end}}`, "./functions/...")
	cmd.Dir, cmd.Stderr = b.root, new(bytes.Buffer)
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list ./functions/...: %w: %s", err, cmd.Stderr)
	}
	for line := range strings.Lines(string(list)) {
		pkg, about, _ := strings.Cut(strings.TrimSpace(line), " ")
		name := pkg[strings.LastIndex(pkg, "/")+1:]
		out = append(out, program{name: name, about: about, dir: ".", pkg: pkg, ports: []string{"8080/tcp", "8081/tcp"}})
	}
	return out, nil
}

// binary compiles a program for a platform.
func (b *builder) binary(ctx context.Context, p program, to v1.Platform) (path string, err error) {
	path = filepath.Join(b.cache, p.name+"-"+dashed(to))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", p.tags,
		"-ldflags", "-s -w -buildid= -X main.version="+b.version, "-o", path, p.pkg)
	cmd.Dir = filepath.Join(b.root, p.dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+to.OS, "GOARCH="+to.Architecture, "GOARM="+strings.TrimPrefix(to.Variant, "v"))
	if p.dir != "." {
		cmd.Env = append(cmd.Env, "GOWORK=off")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build for %s: %w: %s", dashed(to), err, bytes.TrimSpace(out))
	}
	return path, nil
}

// dashed is a platform as a part of a file's name.
func dashed(p v1.Platform) string {
	return p.OS + "-" + p.Architecture + p.Variant
}
