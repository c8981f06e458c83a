# SPDX-License-Identifier: GPL-2.0

KVER ?= $(shell uname -r)

# What kbuild is told besides: CLIPPY=1 looks at the code, W=e makes warnings errors, V=1 shows
# the commands.
kbuild_flags := $(foreach flag,CLIPPY W V,$(if $($(flag)),$(flag)=$($(flag))))

# Whose Kbuild it is.
M := $(CURDIR)

# Kbuild's own makes start with none of this one's flags.
kbuild = builddir=$$(scripts/metadata.sh --kver '$(KVER)') && \
	vars=$$(scripts/metadata.sh --kver '$(KVER)' --print-make-vars) && \
	MAKEFLAGS='$(filter -j% --jobserver%,$(MAKEFLAGS))' \
	$(MAKE) -C "$$builddir" M='$(M)' $$vars $(kbuild_flags)

.PHONY: module install clean help

## module: toa.ko for the running kernel, or for KVER=…; makes the kernel's Rust metadata first if its headers have none
module:
	+@$(kbuild) modules

## install: put the toa.ko that `make` made into /lib/modules/KVER, where modprobe finds it
install:
	@[ "$$(modinfo -F vermagic toa.ko 2>/dev/null | cut -d ' ' -f 1)" = '$(KVER)' ] || \
		{ echo "there is no toa.ko for $(KVER) here: run make KVER=$(KVER) first" >&2; exit 1; }
	install -D -m 644 toa.ko '$(DESTDIR)/lib/modules/$(KVER)/updates/toa.ko'
	depmod -b '$(DESTDIR)/' '$(KVER)'

## clean: remove what `make` made here
clean:
	rm -rf build toa_bindings.rs *.o *.ko *.mod *.mod.c *.rmeta .*.cmd .*.d .tmp_* \
		.module-common.o Module.symvers modules.order

## help: this list
help:
	@echo 'make [TARGET] [KVER=kernel release] [KERNEL=suite of the archive]'
	@echo
	@sed -n 's/^## \([^:]*\): \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target what; do printf '  %-15s %s\n' "$$target" "$$what"; done

# Neither is in what DKMS builds.
-include Makefile.tests Makefile.packages
