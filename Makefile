# SPDX-License-Identifier: GPL-2.0

KVER ?= $(shell uname -r)

# The `kernel` crate: the kernel's own, or the stand-in of rust/kernel/, which any kernel can use. The
# kernel's configuration decides, never the packages that are installed.
headers = $(firstword $(wildcard /lib/modules/$(KVER)/build /usr/src/linux-headers-$(KVER)))
RUST ?= $(if $(shell grep -sx CONFIG_RUST=y '$(headers)/.config'),kernel,standin)
ifeq ($(filter kernel standin,$(RUST)),)
$(error RUST=$(RUST) is neither kernel nor standin)
endif

# What finds the kernel's build directory and the compilers.
find = scripts/$(if $(filter kernel,$(RUST)),metadata.sh,standin.sh) --kver '$(KVER)'

# Further variables for kbuild: CLIPPY=1 runs clippy, W=e makes warnings errors, V=1 shows the
# commands.
kbuild_flags := $(foreach flag,CLIPPY W V,$(if $($(flag)),$(flag)=$($(flag))))

# The directory of the Kbuild file.
M := $(CURDIR)

# The makes of kbuild inherit only the job flags of this make.
kbuild = builddir=$$($(find)) && vars=$$($(find) --print-make-vars) && \
	MAKEFLAGS='$(filter -j% --jobserver%,$(MAKEFLAGS))' \
	$(MAKE) -C "$$builddir" M='$(M)' RUST=$(RUST) $$vars $(kbuild_flags)

# A module with the stand-in crate must pass a check of its object, or it does not stay. clippy switches
# optimizations off, so its objects have calls that others lack.
check = $(if $(filter standin-,$(RUST)-$(CLIPPY)),for module in '$(M)'/*.ko; do \
	scripts/check-object.sh "$$module" "$$builddir" || { rm -f "$$module"; exit 1; }; done,:)

.PHONY: module install clean help

## module: build toa.ko for the running kernel, or for KVER=…, with the crate RUST=kernel or RUST=standin; for the former it regenerates the kernel's Rust metadata if its headers lack it
module:
	+@$(kbuild) modules && $(check)

## install: copy the built toa.ko to /lib/modules/KVER, where modprobe finds it
install:
	@[ "$$(modinfo -F vermagic toa.ko 2>/dev/null | cut -d ' ' -f 1)" = '$(KVER)' ] || \
		{ echo "there is no toa.ko for $(KVER) here: run make KVER=$(KVER) first" >&2; exit 1; }
	install -D -m 644 toa.ko '$(DESTDIR)/lib/modules/$(KVER)/updates/toa.ko'
	depmod -b '$(DESTDIR)/' '$(KVER)'

## clean: remove the output of `make` in this directory
clean:
	rm -rf build standin toa_offsets.rs *.o *.ko *.mod *.mod.c *.rmeta .*.cmd .*.d .tmp_* \
		.module-common.o Module.symvers modules.order

## help: list the targets
help:
	@echo 'make [TARGET] [KVER=kernel release] [KERNEL=suite of the archive]'
	@echo
	@sed -n 's/^## \([^:]*\): \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target what; do printf '  %-15s %s\n' "$$target" "$$what"; done

# The sources for DKMS contain neither file.
-include Makefile.tests Makefile.packages
