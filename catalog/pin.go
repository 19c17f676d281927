package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

const (
	pinsMost   = 10_000
	reasonMost = 1024 // bytes
)

// Values of Pin.By.
const (
	PinnedByAPI    = "api"
	PinnedByConfig = "config"
)

// ErrPinnedByConfig says that a pin is the configuration's, and is changed there. ErrTooManyPins says that no more pins can be
// kept.
var (
	ErrPinnedByConfig = errors.New("the tag is pinned by the configuration; change upstreams.<name>.pins there")
	ErrTooManyPins    = fmt.Errorf("there are %d pins, which is the most that are kept; remove one", pinsMost)
)

// Pin says that a tag is a digest, whatever its registry says.
type Pin struct {
	Ref    oci.Ref // with a tag; its digest is not used
	Digest oci.Digest
	Since  time.Time
	Until  time.Time // zero: without end
	Reason string    // in the words of the operator; may be empty
	By     string    // PinnedByAPI or PinnedByConfig
	// Operator is the name of the operator that set it; empty: the configuration did, a caller without a name, or an earlier version.
	Operator string
}

// active reports whether the pin has not ended.
func (p Pin) active(now time.Time) bool { return p.Until.IsZero() || now.Before(p.Until) }

// pinRecord is a Pin as it is stored, under the key of its tag. Fields are only ever added.
type pinRecord struct {
	Digest oci.Digest `json:"digest"`
	Since  time.Time  `json:"since"`
	Until  time.Time  `json:"until,omitzero"`
	Reason string     `json:"reason,omitempty"`
	Over   bool       `json:"over,omitempty"` // EndedPins has returned it

	Operator string `json:"operator,omitempty"`
}

// pins are all pins, in memory: they are looked up for each pull.
type pins struct {
	table state.Table // nil: none
	log   *slog.Logger

	both atomic.Pointer[map[string]Pin] // by key of the tag; never changed once it is here

	mu          sync.Mutex // guards what follows; held during writes
	api, config map[string]Pin
	over        map[string]bool // of api: EndedPins has returned them
}

func newPins(table state.Table, log *slog.Logger) *pins {
	p := &pins{table: table, log: log, api: make(map[string]Pin), over: make(map[string]bool)}
	p.load()
	p.publish()
	return p
}

// load reads the table.
func (p *pins) load() {
	if p.table == nil {
		return
	}
	for it, err := range p.table.Scan("") {
		if err != nil {
			p.log.Error("cannot read the pins; pinned tags are served as their registries say; restart the mirror when its disk works",
				"error", err)
			return
		}
		pin, over, err := decodePin(it)
		if err != nil {
			p.log.Error("record of a pin is damaged; the tag is served as its registry says; pin it again", "name", it.Key, "error", err)
			continue
		}
		p.api[it.Key], p.over[it.Key] = pin, over
	}
}

func decodePin(it state.Item) (pin Pin, over bool, err error) {
	var r pinRecord
	if err := json.Unmarshal(it.Value, &r); err != nil {
		return Pin{}, false, err
	}
	ref, ok := tagRef(it.Key)
	if !ok {
		return Pin{}, false, errForm
	}
	if err := r.Digest.Validate(); err != nil {
		return Pin{}, false, err
	}
	return Pin{
		Ref: ref, Digest: r.Digest, Since: r.Since, Until: r.Until, Reason: r.Reason, By: PinnedByAPI, Operator: r.Operator,
	}, r.Over, nil
}

func encodePin(pin Pin, over bool) ([]byte, error) {
	return json.Marshal(pinRecord{
		Digest: pin.Digest, Since: pin.Since, Until: pin.Until, Reason: pin.Reason, Over: over, Operator: pin.Operator,
	})
}

// publish makes the pins visible. The lock is held.
func (p *pins) publish() {
	both := maps.Clone(p.api)
	maps.Copy(both, p.config)
	p.both.Store(&both)
}

// SetPin pins a tag, in place of a former pin. When it returns nil, that is on disk.
func (p *pins) SetPin(pin Pin) error {
	pin.Ref.Digest = ""
	key := tagKey(pin.Ref)
	if ref, ok := tagRef(key); !ok || ref != pin.Ref {
		return fmt.Errorf("pin %s: a host, a repository and a tag are needed", key)
	}
	if err := pin.Digest.Validate(); err != nil {
		return fmt.Errorf("pin %s to %q: %w", key, pin.Digest, err)
	}
	if len(pin.Reason) > reasonMost {
		return fmt.Errorf("pin %s: the reason has %d bytes, at most %d are kept", key, len(pin.Reason), reasonMost)
	}
	now := time.Now()
	if pin.Since.IsZero() {
		pin.Since = now
	}
	pin.By = PinnedByAPI
	return p.set(key, pin, now)
}

func (p *pins) set(key string, pin Pin, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.config[key]; ok {
		return fmt.Errorf("pin %s: %w", key, ErrPinnedByConfig)
	}
	b, err := encodePin(pin, false)
	if err != nil {
		return fmt.Errorf("pin %s: %w", key, err)
	}
	items := []state.Item{{Key: key, Value: b}}
	if _, ok := p.api[key]; !ok && len(p.api) >= pinsMost {
		ended := p.ended(now)
		if len(ended) == 0 {
			return fmt.Errorf("pin %s: %w", key, ErrTooManyPins)
		}
		items = append(items, ended...)
	}
	if err := p.write(items); err != nil {
		return fmt.Errorf("pin %s: %w", key, err)
	}
	for _, it := range items {
		delete(p.api, it.Key)
	}
	p.api[key], p.over[key] = pin, false
	p.publish()
	return nil
}

// EndedPins returns the pins by command whose time has come, each once, also over a restart.
func (p *pins) EndedPins(now time.Time) (list []Pin, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var items []state.Item
	for key, pin := range p.api {
		if pin.active(now) || p.over[key] {
			continue
		}
		b, err := encodePin(pin, true)
		if err != nil {
			return nil, fmt.Errorf("end the pin of %s: %w", key, err)
		}
		list, items = append(list, pin), append(items, state.Item{Key: key, Value: b})
	}
	if len(items) == 0 {
		return nil, nil
	}
	if err := p.write(items); err != nil {
		return nil, fmt.Errorf("end %d pins: %w", len(items), err)
	}
	for _, it := range items {
		p.over[it.Key] = true
	}
	return list, nil
}

// ended are the removals of all pins that have ended. They are kept until there is no room, since the clock may be wrong.
func (p *pins) ended(now time.Time) (items []state.Item) {
	for key, pin := range p.api {
		if !pin.active(now) {
			items = append(items, state.Item{Key: key})
		}
	}
	return items
}

func (p *pins) write(items []state.Item) error {
	if p.table == nil {
		return nil
	}
	return p.table.Write(items)
}

// RemovePin removes the pin of a tag. The error is ErrUnknown where there is none, and ErrPinnedByConfig where it is the
// configuration's.
func (p *pins) RemovePin(ref oci.Ref) error {
	key := tagKey(ref)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.config[key]; ok {
		return fmt.Errorf("remove the pin of %s: %w", key, ErrPinnedByConfig)
	}
	pin, ok := p.api[key]
	if !ok {
		return fmt.Errorf("remove the pin of %s: %w", key, ErrUnknown)
	}
	if err := p.write([]state.Item{{Key: key}}); err != nil {
		return fmt.Errorf("remove the pin of %s: %w", key, err)
	}
	delete(p.api, key)
	p.publish()
	if !pin.active(time.Now()) {
		return fmt.Errorf("remove the pin of %s: %w", key, ErrUnknown)
	}
	return nil
}

// UsePins sets the pins of the configuration. They win over others.
func (p *pins) UsePins(list []Pin) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[string]Pin, len(list))
	for _, pin := range list {
		pin.Ref.Digest, pin.By = "", PinnedByConfig
		key := tagKey(pin.Ref)
		if old, ok := p.config[key]; pin.Since.IsZero() && ok && old.Digest == pin.Digest {
			pin.Since = old.Since
		} else if pin.Since.IsZero() {
			pin.Since = now
		}
		next[key] = pin
	}
	p.config = next
	p.publish()
}

// Pinned returns the pin of a tag, if it has one at that time. It reads memory alone, and waits for no writer.
func (p *pins) Pinned(ref oci.Ref, now time.Time) (Pin, bool) {
	all := *p.both.Load()
	if len(all) == 0 { // most mirrors have none, and this is asked for each pull
		return Pin{}, false
	}
	pin, ok := all[tagKey(ref)]
	if !ok || !pin.active(now) {
		return Pin{}, false
	}
	return pin, true
}

// Pins returns the pins at a time, ordered by the names of their tags.
func (p *pins) Pins(now time.Time) []Pin {
	list := slices.DeleteFunc(slices.Collect(maps.Values(*p.both.Load())), func(p Pin) bool { return !p.active(now) })
	slices.SortFunc(list, func(a, b Pin) int { return strings.Compare(tagKey(a.Ref), tagKey(b.Ref)) })
	return list
}
