# SPDX-License-Identifier: GPL-2.0

KVER ?= $(shell uname -r)

# The directory of the Kbuild file.
M := $(CURDIR)

# In the environment: a path may have characters that a shell would interpret. The makes of kbuild
# inherit only the job flags of this make. exec: the signal that ends make ends the script too.
script_of_module = @MAKEFLAGS= KVER='$(KVER)' exec scripts/module.sh
export RUST CLIPPY W V DESTDIR
module: export TOA_M = $(M)
module: export TOA_JOBS = $(filter -j% --jobserver%,$(MAKEFLAGS))

.PHONY: module install uninstall clean help

## module: build toa.ko for the running kernel, or for KVER=…, with the crate RUST=kernel or RUST=standin; for the former it regenerates the kernel's Rust metadata if its headers lack it
module:
	+$(script_of_module) build

## install: copy the built toa.ko to /lib/modules/KVER, where modprobe finds it
install:
	$(script_of_module) install

## uninstall: remove it from there
uninstall:
	$(script_of_module) uninstall

## clean: remove the output of `make` in this directory
clean:
	$(script_of_module) clean
	rm -rf build

## help: list the targets
help:
	@echo 'make [TARGET] [KVER=kernel release] [KERNEL=suite of the archive]'
	@echo
	@sed -n 's/^## \([^:]*\): \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target what; do printf '  %-15s %s\n' "$$target" "$$what"; done

# The sources for DKMS contain neither file.
-include Makefile.tests Makefile.packages
