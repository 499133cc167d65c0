# The same commands under names that everyone knows. All of them are `cargo xtask ...`.

CARGO ?= cargo
# rustup puts cargo here; a shell that has not been restarted since does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help setup build test demo bench vm clean rust

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: rust ## install what is missing; says what and why
	@$(CARGO) xtask setup

build: rust ## kernel programs and daemon, optimised
	@$(CARGO) xtask build --release

test: rust ## every check and test; root for the lab, asked for with sudo
	@$(CARGO) xtask test

demo: rust ## the entrance at work with real clients and servers, in a minute
	@$(CARGO) xtask demo

bench: rust ## the entrance beside routing, nftables, nginx, HAProxy; about 25 minutes
	@$(CARGO) xtask bench

vm: rust ## the main job on a distribution kernel with the WireGuard module
	@$(CARGO) xtask vm

clean: ## remove what was built and the cache
	rm -rf target .cache forwarder-ebpf/target

# Cargo must exist before `cargo xtask` can look after the rest.
rust:
	@if ! command -v $(CARGO) >/dev/null; then \
	  echo 'Rust is missing. Get it with rustup, as yourself, not as root:'; \
	  echo '  Debian 13 or newer, Ubuntu 24.04 or newer:  sudo apt install rustup'; \
	  echo '  anywhere else:                              https://rustup.rs'; \
	  echo 'rustup then fetches the pinned toolchain (rust-toolchain.toml) by itself.'; \
	  exit 1; \
	fi
	@if ! $(CARGO) --version >/dev/null 2>&1; then \
	  echo 'installing the toolchain that rust-toolchain.toml names'; \
	  rustup toolchain install --no-self-update; \
	fi
	@if ! command -v cc >/dev/null; then \
	  echo 'A C compiler is missing; `cargo` needs one to link. Debian, Ubuntu:'; \
	  echo '  sudo apt install gcc libc6-dev'; \
	  exit 1; \
	fi
