# Builds and installs what users of handoff get: the program, the library for C, its header.
#
#   make                                    as this user; cargo is needed
#   make install [PREFIX=/usr/local] [LIBDIR= INCLUDEDIR= BINDIR= DATADIR= MANDIR=] [DESTDIR=]
#   make uninstall                          with the same variables
#
# `install` builds only what is missing or older than its source, so that after `make` it needs no cargo.

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man
DESTDIR    ?=

CARGO      ?= cargo
CARGOFLAGS ?= --locked
INSTALL    ?= install

package = $(shell sed -n 's/^$(1) = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
VERSION     := $(call package,version)
DESCRIPTION := $(call package,description)
SONAME      := libhandoff.so.0

CARGO_TARGET_DIR ?= target
PROGRAM := $(CARGO_TARGET_DIR)/release/handoff
BUILD   := $(CARGO_TARGET_DIR)/dist
SOURCES := $(shell find src -name '*.rs') build.rs cbindgen.toml Cargo.toml Cargo.lock

all: $(PROGRAM) $(BUILD)/libhandoff.so $(BUILD)/libhandoff.a

# Touched, since cargo leaves alone what a change does not concern.
$(PROGRAM): $(SOURCES)
	$(CARGO) build $(CARGOFLAGS) --release --bin handoff
	touch $@

# The profile is in Cargo.toml. These two crate types and no third: beside an rlib cargo leaves out LTO without a
# word. The compiler tells what a program that links the archive needs beside it.
$(BUILD)/libhandoff.so: $(SOURCES)
	$(CARGO) rustc $(CARGOFLAGS) --profile dist --lib --no-default-features --crate-type cdylib,staticlib \
	    -- --print native-static-libs=$(abspath $(BUILD))/native-static-libs
	touch $@

$(BUILD)/libhandoff.a: $(BUILD)/libhandoff.so
	touch $@

# Where each shell looks for completions.
completions = bash:bash-completion/completions/handoff zsh:zsh/site-functions/_handoff fish:fish/vendor_completions.d/handoff.fish

# Relative to the prefix where that can be, so that the whole of it may be moved (pkg-config --define-prefix).
relative = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))

install: all
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR)/pkgconfig
	$(INSTALL) -s -m 755 $(PROGRAM) $(DESTDIR)$(BINDIR)/handoff
	$(INSTALL) -m 644 include/handoff.h $(DESTDIR)$(INCLUDEDIR)/handoff.h
	$(INSTALL) -m 755 $(BUILD)/libhandoff.so $(DESTDIR)$(LIBDIR)/libhandoff.so.$(VERSION)
	ln -sfn libhandoff.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sfn $(SONAME) $(DESTDIR)$(LIBDIR)/libhandoff.so
	$(INSTALL) -m 644 $(BUILD)/libhandoff.a $(DESTDIR)$(LIBDIR)/libhandoff.a
	strip --strip-debug $(DESTDIR)$(LIBDIR)/libhandoff.a
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(call relative,$(LIBDIR))|; s|@INCLUDEDIR@|$(call relative,$(INCLUDEDIR))|' \
	    -e 's|@VERSION@|$(VERSION)|; s|@DESCRIPTION@|$(DESCRIPTION)|' \
	    -e "s|@LIBS_PRIVATE@|$$(cat $(BUILD)/native-static-libs)|" handoff.pc.in >$(BUILD)/handoff.pc
	$(INSTALL) -m 644 $(BUILD)/handoff.pc $(DESTDIR)$(LIBDIR)/pkgconfig/handoff.pc
	$(INSTALL) -d $(DESTDIR)$(MANDIR)/man1
	$(PROGRAM) man $(DESTDIR)$(MANDIR)/man1
	for pair in $(completions); do \
	    file=$(DESTDIR)$(DATADIR)/$${pair#*:} && $(INSTALL) -d $$(dirname $$file) && \
	    $(PROGRAM) completions $${pair%%:*} >$$file || exit; \
	done

uninstall:
	rm -f $(DESTDIR)$(MANDIR)/man1/handoff.1 $(DESTDIR)$(MANDIR)/man1/handoff-*.1
	rm -f $(foreach pair,$(completions),$(DESTDIR)$(DATADIR)/$(lastword $(subst :, ,$(pair))))
	rm -f $(DESTDIR)$(BINDIR)/handoff $(DESTDIR)$(INCLUDEDIR)/handoff.h $(DESTDIR)$(LIBDIR)/pkgconfig/handoff.pc
	cd $(DESTDIR)$(LIBDIR) && rm -f libhandoff.a libhandoff.so $(SONAME) libhandoff.so.$(VERSION)

.PHONY: all install uninstall
.DELETE_ON_ERROR:
