package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/registrymirror/mirror/internal/point"
)

// boot is the content of boot.json.
type boot struct {
	// Boot is the boot of the machine whose unmarked content can be trusted. It stays at a former boot until all suspect
	// content has been hashed, so that nothing is lost by a second crash in between.
	Boot string `json:"boot"`
	// Clean says that everything was synced and no process has used the folder since.
	Clean bool `json:"clean"`
}

// bootRecord is boot.json. Nothing is committed before it says that this process uses the folder.
type bootRecord struct {
	folder *folder

	mu      sync.Mutex // guards the fields below, and the writing of the file
	want    boot       // what the file has to say before anything is committed
	written bool       // it says so
}

// read returns what the process before has written. Without a record, all content is suspect.
func (r *bootRecord) read() (b boot) {
	data, err := r.folder.root.ReadFile(bootFile)
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return b
	}
	r.folder.report(slog.LevelWarn, "the record of the last stop can't be read; content is hashed before it is served",
		"name", bootFile, "error", err)
	return boot{}
}

// ensure writes what the file has to say, unless it says so.
func (r *bootRecord) ensure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written {
		return nil
	}
	if err := r.write(r.want); err != nil {
		return fmt.Errorf("write %s: %w", bootFile, err)
	}
	r.written = true
	return nil
}

// change changes what the file has to say.
func (r *bootRecord) change(b boot) error {
	r.mu.Lock()
	r.want, r.written = b, false
	r.mu.Unlock()
	return r.ensure()
}

// write writes the file, durably.
func (r *bootRecord) write(b boot) error {
	tmp, err := r.folder.writeTemp(bootFile, b, true)
	if err != nil {
		return err
	}
	point.Hit("disk/note")
	if err := r.folder.root.Rename(tmp, bootFile); err != nil {
		return err
	}
	point.Hit("disk/noted")
	return r.folder.root.Sync(r.folder.self)
}
