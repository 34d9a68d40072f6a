package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nobody runs all programs; the number is the one that other images without a user database use, too.
const nobody = 65532

// epoch is the time of everything in an image, so that it does not depend on when it was built.
var epoch = time.Unix(0, 0).UTC()

// isTag is what a tag may be.
var isTag = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// made is what is to be said of an image.
type made struct {
	reference, digest string
	size              int64
}

// image builds a program for all platforms and writes it to DIR/NAME.tar, with the lists of modules beside it.
func (b *builder) image(ctx context.Context, p program, repository, dir string) (made, error) {
	tag := "latest"
	if isTag.MatchString(b.version) {
		tag = b.version
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var referrers []v1.Image
	for _, to := range b.platforms {
		binary, err := b.binary(ctx, p, to)
		if err != nil {
			return made{}, err
		}
		img, err := assemble(p, to, b.version, binary)
		if err != nil {
			return made{}, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &to}})
		bom, err := billOfMaterials(binary, p, b.version)
		if err != nil {
			return made{}, err
		}
		if err := os.WriteFile(filepath.Join(dir, p.name+"-"+dashed(to)+".cdx.json"), bom, 0o644); err != nil { //nolint:gosec // for all to read
			return made{}, err
		}
		ref, err := referrer(img, bom)
		if err != nil {
			return made{}, err
		}
		referrers = append(referrers, ref)
	}
	name := path.Join(repository, p.name) + ":" + tag
	size, err := writeLayout(filepath.Join(dir, p.name+".tar"), name, index, referrers)
	if err != nil {
		return made{}, err
	}
	digest, err := index.Digest()
	return made{name, digest.String(), size}, err
}

// assemble makes the image of one binary.
func assemble(p program, to v1.Platform, version, binary string) (v1.Image, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	layer, err := rootfs(p, content)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Variant = to.OS, to.Architecture, to.Variant
	cf.Created = v1.Time{Time: epoch}
	cf.History = []v1.History{{Created: v1.Time{Time: epoch}, CreatedBy: "tools/images"}}
	labels := map[string]string{
		"org.opencontainers.image.title": p.name, "org.opencontainers.image.description": p.about,
		"org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0",
	}
	cf.Config = v1.Config{
		Entrypoint: []string{"/bin/" + p.name}, User: fmt.Sprintf("%d:%d", nobody, nobody), Env: []string{"PATH=/bin"},
		WorkingDir: p.work, Labels: labels,
	}
	for _, port := range p.ports {
		if cf.Config.ExposedPorts == nil {
			cf.Config.ExposedPorts = map[string]struct{}{}
		}
		cf.Config.ExposedPorts[port] = struct{}{}
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return nil, err
	}
	annotated, ok := mutate.Annotations(img, labels).(v1.Image)
	if !ok {
		return nil, errors.New("an image with annotations is no image")
	}
	return annotated, nil
}

// rootfs is the file system of a program: the program, a place for temporary files, and the one for its state.
func rootfs(p program, binary []byte) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dir := func(name string, mode int64, owner int) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner, ModTime: epoch})
	}
	errs := []error{
		dir("bin", 0o755, 0),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/" + p.name, Mode: 0o755, Size: int64(len(binary)), ModTime: epoch}),
	}
	_, err := w.Write(binary)
	errs = append(errs, err, dir("tmp", 0o1777, 0))
	if p.state != "" {
		elems := strings.Split(strings.Trim(p.state, "/"), "/")
		for i := range elems {
			mode, owner := int64(0o755), 0
			if i == len(elems)-1 {
				mode, owner = 0o750, nobody
			}
			errs = append(errs, dir(strings.Join(elems[:i+1], "/"), mode, owner))
		}
	}
	if err := errors.Join(append(errs, w.Close())...); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}

// bomType is the media type of a list of modules.
const bomType = "application/vnd.cyclonedx+json"

// referrer is a manifest that attaches a list of modules to an image, as registries and their clients look for it
// (OCI image specification 1.1, "subject").
func referrer(img v1.Image, bom []byte) (v1.Image, error) {
	subject, err := partial.Descriptor(img)
	if err != nil {
		return nil, err
	}
	ref := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), bomType)
	if ref, err = mutate.AppendLayers(ref, static.NewLayer(bom, bomType)); err != nil {
		return nil, err
	}
	attached, ok := mutate.Subject(ref, v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}).(v1.Image)
	if !ok {
		return nil, errors.New("an image with a subject is no image")
	}
	return attached, nil
}

// writeLayout writes an index and what refers to its images as a tar of an OCI layout.
func writeLayout(file, name string, index v1.ImageIndex, referrers []v1.Image) (size int64, err error) {
	dir, err := os.MkdirTemp("", "oci")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return 0, err
	}
	err = l.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          name,
		"org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:],
	}))
	for _, r := range referrers {
		err = errors.Join(err, l.AppendImage(r))
	}
	if err != nil {
		return 0, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// In lexical order.
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p) //nolint:gosec // nobody else writes to this directory
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: rel, Mode: 0o644, Size: int64(len(content)), ModTime: epoch}); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return 0, err
	}
	return int64(b.Len()), os.WriteFile(file, b.Bytes(), 0o644) //nolint:gosec // images are for all to read
}
