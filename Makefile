# SPDX-License-Identifier: GPL-2.0

KVER ?= $(shell uname -r)

# Further variables for kbuild: CLIPPY=1 runs clippy, W=e makes warnings errors, V=1 shows the
# commands.
kbuild_flags := $(foreach flag,CLIPPY W V,$(if $($(flag)),$(flag)=$($(flag))))

# The directory of the Kbuild file.
M := $(CURDIR)

# The makes of kbuild inherit only the job flags of this make.
kbuild = builddir=$$(scripts/metadata.sh --kver '$(KVER)') && \
	vars=$$(scripts/metadata.sh --kver '$(KVER)' --print-make-vars) && \
	MAKEFLAGS='$(filter -j% --jobserver%,$(MAKEFLAGS))' \
	$(MAKE) -C "$$builddir" M='$(M)' $$vars $(kbuild_flags)

.PHONY: module install clean help

## module: build toa.ko for the running kernel, or for KVER=…; regenerates the kernel's Rust metadata if its headers lack it
module:
	+@$(kbuild) modules

## install: copy the built toa.ko to /lib/modules/KVER, where modprobe finds it
install:
	@[ "$$(modinfo -F vermagic toa.ko 2>/dev/null | cut -d ' ' -f 1)" = '$(KVER)' ] || \
		{ echo "there is no toa.ko for $(KVER) here: run make KVER=$(KVER) first" >&2; exit 1; }
	install -D -m 644 toa.ko '$(DESTDIR)/lib/modules/$(KVER)/updates/toa.ko'
	depmod -b '$(DESTDIR)/' '$(KVER)'

## clean: remove the output of `make` in this directory
clean:
	rm -rf build toa_offsets.rs *.o *.ko *.mod *.mod.c *.rmeta .*.cmd .*.d .tmp_* \
		.module-common.o Module.symvers modules.order

## help: list the targets
help:
	@echo 'make [TARGET] [KVER=kernel release] [KERNEL=suite of the archive]'
	@echo
	@sed -n 's/^## \([^:]*\): \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target what; do printf '  %-15s %s\n' "$$target" "$$what"; done

# The sources for DKMS contain neither file.
-include Makefile.tests Makefile.packages
