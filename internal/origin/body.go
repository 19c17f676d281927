package origin

import (
	"bytes"
	"fmt"
)

// The shapes of error bodies that registries and what stands around them send, for Fault.Body.

// ErrorBody is the one of the distribution spec.
func ErrorBody(code, message string) string {
	return string(marshal(map[string]any{"errors": []map[string]any{{"code": code, "message": message}}}))
}

// DetailsBody is that of Docker Hub's token service.
func DetailsBody(details string) string {
	return string(marshal(map[string]string{"details": details}))
}

// MessageBody is that of API gateways.
func MessageBody(message string) string {
	return string(marshal(map[string]string{"message": message}))
}

// HTMLBody is that of proxies, portals and error pages.
func HTMLBody(title string) string {
	return fmt.Sprintf("<!DOCTYPE html>\n<html><head><title>%[1]s</title></head><body><h1>%[1]s</h1></body></html>\n",
		title)
}

// XMLBody is that of object stores.
func XMLBody(code, message string) string {
	return fmt.Sprintf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>",
		code, message)
}

// wrong is content of which bytes were changed.
type wrong struct {
	content
	all  bool
	flip []int64
}

// ReadAt implements io.ReaderAt.
func (w *wrong) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.content.ReadAt(p, off)
	if w.all {
		for i := range p[:n] {
			p[i] ^= 0xff
		}
	}
	for _, at := range w.flip {
		if at < 0 {
			at += w.Size()
		}
		if at >= off && at < off+int64(n) {
			p[at-off] ^= 0x10
		}
	}
	return n, err
}

// longer is a part of content and more behind it.
type longer struct {
	content
	from, length int64
	extra        *bytes.Reader
}

func (l *longer) Size() int64 { return l.length + l.extra.Size() }

// ReadAt implements io.ReaderAt.
func (l *longer) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < l.length {
		n, _ = l.content.ReadAt(p[:min(int64(len(p)), l.length-off)], l.from+off)
		if n == len(p) {
			return n, nil
		}
	}
	m, err := l.extra.ReadAt(p[n:], off+int64(n)-l.length)
	return n + m, err
}
