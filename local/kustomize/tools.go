//go:build tools

// Package kustomize names the one program that this module is for, built at a pinned version.
package kustomize

import _ "sigs.k8s.io/kustomize/kustomize/v5"
