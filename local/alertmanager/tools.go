//go:build tools

// Package alertmanager names the two programs that this module is for, built at a pinned version. Debian's package cannot be
// unpacked and run: it looks for its templates in /usr/share.
package alertmanager

import (
	_ "github.com/prometheus/alertmanager/cmd/alertmanager"
	_ "github.com/prometheus/alertmanager/cmd/amtool"
)
