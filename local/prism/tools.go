//go:build tools

// Package prism names the one program that this module is for: Beam's local runner, built at a pinned version.
package prism

import _ "github.com/apache/beam/sdks/v2/go/cmd/prism"
