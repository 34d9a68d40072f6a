package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// build makes images anew, from nothing kept.
func build(t *testing.T, args ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := run(t.Context(), append(args, dir), io.Discard); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReproducible(t *testing.T) {
	first, second := build(t, "-version", "v1.2.3", "-only", "pause"), build(t, "-version", "v1.2.3", "-only", "pause")
	files, err := os.ReadDir(first)
	if err != nil || len(files) != 1+len(platforms) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		a, errA := os.ReadFile(filepath.Join(first, f.Name()))
		b, errB := os.ReadFile(filepath.Join(second, f.Name()))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: two runs have made different files", f.Name())
		}
	}
	other := build(t, "-version", "v1.2.4", "-only", "pause")
	if a, b := open(t, first, "pause").digest, open(t, other, "pause").digest; a == b {
		t.Errorf("another version has the same digest, %s", a)
	}
}

func TestUnknownImage(t *testing.T) {
	err := run(t.Context(), []string{"-only", "pause,puase", t.TempDir()}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `"puase"`) {
		t.Error(err)
	}
}

// archive is an image as it is in a tar.
type archive struct {
	name, digest string
	index        v1.ImageIndex
	layout       layout.Path
	top          *v1.IndexManifest
}

// open unpacks an image.
func open(t *testing.T, dir, name string) archive {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, name+".tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	to := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsLocal(h.Name) || !h.ModTime.Equal(epoch) || h.Uid != 0 || h.Typeflag != tar.TypeReg {
			t.Fatalf("%s: %+v", name, h)
		}
		content, err := io.ReadAll(r)
		path := filepath.Join(to, h.Name)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := layout.FromPath(to)
	if err != nil {
		t.Fatal(err)
	}
	root, err := l.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	top, err := root.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	a := archive{layout: l, top: top}
	for _, d := range top.Manifests {
		if ref := d.Annotations["io.containerd.image.name"]; ref != "" {
			a.name, a.digest = ref, d.Digest.String()
			if a.index, err = root.ImageIndex(d.Digest); err != nil {
				t.Fatal(err)
			}
		}
	}
	if a.index == nil {
		t.Fatalf("%s: no index in it has a name", name)
	}
	return a
}

// TestImages looks at images that make image has built.
func TestImages(t *testing.T) {
	dir := os.Getenv("WATTLET_IMAGES")
	if dir == "" {
		dir = build(t, "-only", "pause")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no images in %s: make image", dir)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".tar")
		t.Run(name, func(t *testing.T) {
			a := open(t, dir, name)
			if err := validate.Index(a.index); err != nil {
				t.Fatal(err)
			}
			m, err := a.index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Manifests) != len(platforms) {
				t.Fatalf("%d platforms", len(m.Manifests))
			}
			for i, d := range m.Manifests {
				if !d.Platform.Equals(platforms[i]) {
					t.Errorf("platform %v, want %v", d.Platform, platforms[i])
				}
				t.Run(dashed(platforms[i]), func(t *testing.T) {
					img, err := a.index.Image(d.Digest)
					if err != nil {
						t.Fatal(err)
					}
					bom, err := os.ReadFile(filepath.Join(dir, name+"-"+dashed(platforms[i])+".cdx.json"))
					if err != nil {
						t.Fatal(err)
					}
					binary := look(t, img, name)
					lookBill(t, bom, binary)
					if attached := a.referrers(t, d.Digest); len(attached) != 1 || !bytes.Equal(attached[0], bom) {
						t.Errorf("%d lists of modules are attached, or it is another one", len(attached))
					}
					try(t, name, platforms[i], binary)
				})
			}
		})
	}
}

// look holds an image against what is promised, and returns its program's path.
func look(t *testing.T, img v1.Image, name string) (binary string) {
	t.Helper()
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cf.Config.User != "65532:65532" || !slices.Equal(cf.Config.Entrypoint, []string{"/bin/" + name}) || cf.Config.Labels["org.opencontainers.image.title"] != name {
		t.Errorf("config %+v", cf.Config)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch {
		case h.Name == "bin/"+name && h.Mode == 0o755 && h.Uid == 0:
			binary = filepath.Join(t.TempDir(), name)
			b, err := io.ReadAll(r)
			if err := errors.Join(err, os.WriteFile(binary, b, 0o755)); err != nil {
				t.Fatal(err)
			}
		case h.Typeflag == tar.TypeDir && (h.Mode == 0o755 && h.Uid == 0 || h.Name == "tmp/" && h.Mode == 0o1777 || h.Mode == 0o750 && h.Uid == nobody):
		default:
			t.Errorf("%s with mode %o of %d in the image", h.Name, h.Mode, h.Uid)
		}
	}
	if binary == "" {
		t.Fatal("no program in it")
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM}[cf.Architecture]
	if libs, err := f.ImportedLibraries(); f.Machine != want || len(libs) > 0 || err != nil {
		t.Errorf("a program for %v that needs %v, %v; the image is for %s", f.Machine, libs, err, cf.Architecture)
	}
	return binary
}

// referrers returns what refers to an image.
func (a archive) referrers(t *testing.T, to v1.Hash) (out [][]byte) {
	t.Helper()
	for _, d := range a.top.Manifests {
		if d.MediaType != types.OCIManifestSchema1 {
			continue
		}
		img, err := a.layout.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject == nil || m.Subject.Digest != to || m.Config.MediaType != bomType || len(m.Layers) != 1 {
			continue
		}
		b, err := a.layout.Bytes(m.Layers[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// lookBill holds a list of modules against the program.
func lookBill(t *testing.T, b []byte, binary string) {
	t.Helper()
	var doc bill
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.BOMFormat != "CycloneDX" || doc.SpecVersion != "1.5" ||
		!regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(doc.SerialNumber) {
		t.Errorf("%q %q %q", doc.BOMFormat, doc.SpecVersion, doc.SerialNumber)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Components) != 1+len(info.Deps) {
		t.Fatalf("%d modules, the program has %d and Go", len(doc.Components), len(info.Deps))
	}
	for i, m := range info.Deps {
		if c := doc.Components[i+1]; c.Name != m.Path || m.Replace == nil && c.PURL != "pkg:golang/"+m.Path+"@"+strings.ReplaceAll(m.Version, "+", "%2B") {
			t.Errorf("module %s %s is %+v", m.Path, m.Version, c)
		}
	}
}

// emulators run programs of other processors; on the processor itself none is needed.
var emulators = map[string]string{"arm": "qemu-arm-static", "arm64": "qemu-aarch64-static", "amd64": ""}

// try runs a program.
func try(t *testing.T, name string, on v1.Platform, binary string) {
	t.Helper()
	command := []string{binary}
	if e := emulators[on.Architecture]; e != "" {
		path, err := exec.LookPath(e)
		if err != nil {
			t.Fatalf("%s is missing: scripts/debian install qemu-user-static", e)
		}
		command = []string{path, binary}
	}
	switch name {
	case "pause", "wattlet", "wattctl":
		for _, flag := range map[string][]string{"pause": {"--version"}, "wattlet": {"--version", "--help"}, "wattctl": {"--help"}}[name] {
			out, err := exec.CommandContext(t.Context(), command[0], append(command[1:], flag)...).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte(name)) {
				t.Errorf("%s: %v: %s", flag, err, out)
			}
		}
	default:
		invoke(t, name, command)
	}
}

// body is what a function is asked with that wants more than a question.
func body(t *testing.T, name string) []byte {
	t.Helper()
	switch name {
	case "analyze-sentence":
		return []byte(`{"sentence": "The cat sat on the mat."}`)
	case "gzip":
		return bytes.Repeat([]byte("joule "), 1000)
	case "resize-image":
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 48))); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	return nil
}

// small makes questions cheap: the processor is emulated.
var small = map[string]string{
	"cpu-bound": "/?below=1000", "memory-bound": "/?mib=1&steps=1000", "short-forked": "/?children=1&below=1000", "resize-image": "/?width=16",
}

// invoke starts a function and asks it once.
func invoke(t *testing.T, name string, command []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "FUNCTION_LISTEN=127.0.0.1:0", "FUNCTION_METRICS_LISTEN=off", "FUNCTION_LINGER=0s", "TMPDIR="+t.TempDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	address := ""
	serving := regexp.MustCompile(`msg=serving .*listen=(\S+)`)
	var all []string
	for address == "" && lines.Scan() {
		all = append(all, lines.Text())
		if m := serving.FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, said) }() // until it ends
	if address == "" {
		t.Fatalf("it does not serve: %s: %v", all, cmd.Wait())
	}
	answer, err := ask(ctx, "http://"+address+small[name], body(t, name))
	if name == "short-forked" && len(command) > 1 && err != nil && strings.Contains(err.Error(), "exec format error") {
		// The kernel does not know that the children it starts need an emulator, too; that it has come to start them is all there is to see.
		answer, err = []byte(err.Error()), nil
	}
	if err != nil || len(answer) == 0 {
		t.Errorf("%q, %v", answer, err)
	}
	if r, err := gzip.NewReader(bytes.NewReader(answer)); name == "gzip" && err == nil {
		if plain, err := io.ReadAll(r); err != nil || !bytes.Equal(plain, body(t, name)) {
			t.Errorf("what gzip packed is not what it was given: %d bytes, %v", len(plain), err)
		}
	}
	t.Logf("%.100q", answer)
	cancel()
	if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("its end: %v", err)
	}
}

// ask asks once the function is ready.
func ask(ctx context.Context, url string, body []byte) ([]byte, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	for {
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		resp, err := new(http.Client).Do(req)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it was read
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusOK:
			return b, nil
		case resp.StatusCode != http.StatusServiceUnavailable: // it is still preparing
			return nil, fmt.Errorf("%s: %s", resp.Status, b)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
