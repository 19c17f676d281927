// Package server is the OCI front end: it parses requests under /v2/, calls a Puller, and writes the answer.
//
//	request ─> chi ─> oci.ParseRequest ─> Puller ─> headers ─> bytes (sendfile where the kernel can)
//	                        │               │
//	                        └──── error ────┴─> diagnose.Explain ─> status, phrase, headers, JSON
//
// Promise: no response ends cleanly with wrong or short bytes, and every error answer has the cause and the remedy in the body and
// in a header, and mostly in the status line.
//
// Guarantees:
//   - Bytes pass as they are: no content coding, no sniffing, no rewriting. A blob's answer always has Content-Length.
//   - HEAD and GET of the same thing get the same status. A HEAD answered 200 carries digest, length and type.
//   - Headers go out once it is certain that the body can begin. If it breaks after that, the connection is aborted:
//     clients resume from an unexpected end, and would take an error document for content.
//   - A client that sends ns never gets 401, since containerd would answer it with the pod's secret. No client gets 429, since
//     containerd would answer it with a burst of retries. A 401 is for a client without ns that is anonymous and that no access rule
//     allows, or whose login is wrong, and at /v2/ where anonymous clients may read nothing.
//   - One sentence, with cause and remedy, is the message in the body, the header Warning, and the reason phrase of the status
//     line, which containerd of every version prints. A 404, an answer over HTTP/2 or to a request with a body, and every answer
//     with errorPhrase: false have no phrase. The header Mirror-Reason has the reason and the failure's id.
//
// Not here: the meaning of names, the cache, and the right to read (pull and below); counting and remembering (journal).
package server
