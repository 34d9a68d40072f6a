// Package web has the built dashboard: what `make web` put into dist, or next to nothing where it was never run.
package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Dashboard returns the files of the dashboard. Without an index.html among them it was not built.
func Dashboard() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // only for a name that is not valid
	}
	return files
}
