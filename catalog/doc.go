// Package catalog is what is known of each repository: which digest its tags mean and meant, and which content belongs
// to it.
//
// Promise: a new or moved tag, and membership of content, are on disk when the call returns, and survive a crash. That
// a check found nothing new is kept in memory and written in batches; a crash loses it, and the tag is checked once
// more. Reads come from memory for what is in use.
//
// The catalog never says that content is in the cache, and never asks an upstream: pull knows both.
package catalog
