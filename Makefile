# "make help" lists the targets.

MAKEFLAGS += --no-print-directory
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --jobs=$(shell nproc)
endif

NGINX_SRC = /usr/share/nginx/src
NGINX_CONF_FLAGS = $(or $(shell bash -c '. $(NGINX_SRC)/conf_flags && \
	echo "$${NGX_CONF_FLAGS[@]}"' 2>/dev/null),--with-compat --with-threads)
SANITIZE =

build_packages = g++ pkg-config nginx-dev libhiredis-dev libpq-dev libcjson-dev \
	libcurl4-openssl-dev libutf8proc-dev libssl-dev
run_packages = nginx redis-server postgresql perl ca-certificates curl
# npm may have come with a Node.js that is not Debian's, whose npm it refuses.
# t/sdk_python.t tries OpenAI's SDK, which Debian has from version 13 on, and
# t/style.t checks with version 14 of clang-format, which is that of Debian 12.
test_packages = libgtest-dev chromium pgbouncer prometheus \
	$(if $(shell command -v npm),,nodejs npm) \
	$(if $(shell command -v python3),,python3) \
	$(shell grep -qs 'VERSION_ID="13"' /etc/os-release && echo python3-openai) \
	$(shell grep -qs 'VERSION_ID="12"' /etc/os-release && echo clang-format)
fuzz_packages = clang libclang-rt-dev

version := $(shell sed -n 's/^.define NGINX_VERSION *"\(.*\)"/\1/p' \
	$(NGINX_SRC)/src/core/nginx.h 2>/dev/null)
BUILD := build$(if $(filter-out file,$(origin NGINX_SRC)),/$(version))

# Lines in backtraces, without variables: compiled in two thirds of the time.
# DEBUG=-g is for a debugger.
DEBUG = -g1

ifeq ($(SANITIZE),)
cc_opt = $(DEBUG) -O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2
ld_opt = -Wl,-z,relro,-z,now
else
# nginx itself is not instrumented, so the sanitizer has to be preloaded, together
# with libstdc++, whose "throw" the sanitizer intercepts at start.
sanitizer := $(if $(findstring thread,$(SANITIZE)),tsan,asan)
BUILD := $(BUILD)/$(sanitizer)
cc_opt = $(DEBUG) -Og -fno-omit-frame-pointer -fsanitize=$(SANITIZE) \
	-fno-sanitize-recover=all
ld_opt = -fsanitize=$(SANITIZE)
export CHATBOT_PRELOAD = $(shell $(CC) -print-file-name=lib$(sanitizer).so \
	):$(shell $(CC) -print-file-name=libstdc++.so)
export LSAN_OPTIONS = suppressions=$(CURDIR)/t/lib/lsan.supp
export TSAN_OPTIONS = suppressions=$(CURDIR)/t/lib/tsan.supp
export UBSAN_OPTIONS = print_stacktrace=1
endif

tree := $(BUILD)/nginx-$(version)
module := $(BUILD)/ngx_http_chatbot_module.so
export CHATBOT_MODULE = $(CURDIR)/$(module)

all: $(module)

help:
	@echo 'make          builds $(module)'
	@echo '              against the installed nginx; against another with'
	@echo '              NGINX_SRC=DIR and its NGINX_CONF_FLAGS="--with-..."'
	@echo 'make run      serves on port 8000, with its own Redis and PostgreSQL'
	@echo 'make test     runs all tests'
	@echo 'make bench    measures speed'
	@echo 'make worst    measures how long one request holds up the event loop'
	@echo 'make faults   measures what is lost when something fails'
	@echo 'make test-valgrind  runs some under valgrind'
	@echo 'make fuzz     feeds the parsers anything, TIME=60 seconds each'
	@echo 'make simulate fails anything in any order, SEEDS=100000 times'
	@echo 'make test-docker  tests docker-compose.yml and the Debian package'
	@echo 'make packages  installs what the build needs, on Debian'
	@echo 'make install  installs the module'
	@echo 'make deb      makes a Debian package'
	@echo 'make format   formats the C++ sources'
	@echo 'make clean    removes what was built'
	@echo 'SANITIZE=address,undefined or =thread builds and tests with these'

missing = On Debian "make packages" installs what the build needs.

# nginx's configure writes into the current directory; so it is run in a directory
# of links to nginx's sources.  The build needs only the headers of these.
$(tree)/objs/Makefile: config config.make $(BUILD)/sources
	@test -n "$(version)" || \
		{ echo 'no nginx in $(NGINX_SRC). $(missing)'; exit 1; }
	mkdir -p $(tree)
	ln -sfn $(abspath $(NGINX_SRC)/src $(NGINX_SRC)/auto) $(tree)
	@echo 'configuring for nginx $(version)'
	@cd $(tree) && $(abspath $(firstword \
			$(wildcard $(NGINX_SRC)/configure $(NGINX_SRC)/auto/configure))) \
		$(NGINX_CONF_FLAGS) --with-cc-opt='$(cc_opt)' --with-ld-opt='$(ld_opt)' \
		--add-dynamic-module=$(CURDIR) >configure.log || \
		{ tail configure.log; echo '$(missing)'; rm -f objs/Makefile; exit 1; }

# config lists the sources, so a new source file needs a new configure.
sources := $(wildcard ngx_http_chatbot_module/*/*.cpp)

$(BUILD)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(sources)' | cmp -s - $@ || echo '$(sources)' >$@

# nginx's Makefile knows the dependencies of our objects.
$(module): $(tree)/objs/Makefile FORCE
	$(MAKE) -s -C $(tree) -f objs/Makefile modules
	ln -f $(tree)/objs/$(@F) $@

# The unit tests link the module's own objects, except those that include nginx.
core_sources := $(filter-out ngx_http_chatbot_module/nginx/%,$(sources))
core_objects := $(core_sources:ngx_http_chatbot_module/%.cpp=$(tree)/objs/addon/%.o)
unit_objects := $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard t/unit/*/*.cpp))
libraries = hiredis libpq libcjson libcurl libutf8proc openssl

$(BUILD)/unit_tests: $(core_objects) $(unit_objects)
	$(CXX) $(ld_opt) -o $@ $^ -lgtest_main -lgtest \
		$(shell pkg-config --libs $(libraries))

$(core_objects): $(module) ;

# Without optimization and with a precompiled header, each of which halves the
# time; the module's objects are optimized.  They come first in the link, so that
# functions of headers are theirs: UndefinedBehaviorSanitizer checks only these.
unit_cxx = $(CXX) -std=c++20 -Wall -Wextra -Werror $(cc_opt) -MMD -MP \
	-O0 -U_FORTIFY_SOURCE \
	$(if $(findstring undefined,$(SANITIZE)),-fno-sanitize=undefined) \
	$(shell pkg-config --cflags $(libraries)) -Ingx_http_chatbot_module -It/unit
gtest := $(BUILD)/t/unit/gtest.hpp

$(gtest).gch:
	@mkdir -p $(@D)
	@echo '#include <gtest/gtest.h>' >$(gtest)
	$(unit_cxx) -x c++-header -o $@ $(gtest)

$(unit_objects): $(BUILD)/%.o: %.cpp $(gtest).gch
	@mkdir -p $(@D)
	$(unit_cxx) $(if $(filter %_test.cpp,$<),-include $(gtest)) -c -o $@ $<

-include $(gtest).d $(unit_objects:.o=.d)

# The fuzzers need clang, so they have objects of their own.
TIME = 60
fuzzers := $(patsubst t/fuzz/%.cpp,build/fuzz/%,$(wildcard t/fuzz/*.cpp))
fuzz_sources := $(filter-out \
	$(addprefix ngx_http_chatbot_module/,postgres/% log/%),$(core_sources))
fuzz_objects := $(fuzz_sources:ngx_http_chatbot_module/%.cpp=build/fuzz/core/%.o)
fuzz_cxx = clang++ -std=c++20 -Wall -Wextra -Werror -gline-tables-only -O1 \
	-MMD -MP -fno-sanitize-recover=all $(shell pkg-config --cflags $(libraries)) \
	-Ingx_http_chatbot_module

$(fuzz_objects): build/fuzz/core/%.o: ngx_http_chatbot_module/%.cpp
	@mkdir -p $(@D)
	$(fuzz_cxx) -fsanitize=fuzzer-no-link,address,undefined -c -o $@ $<

$(fuzzers): build/fuzz/%: t/fuzz/%.cpp $(fuzz_objects)
	$(fuzz_cxx) -fsanitize=fuzzer,address,undefined -o $@ $< $(fuzz_objects) \
		$(shell pkg-config --libs $(libraries))

-include $(fuzz_objects:.o=.d) $(fuzzers:=.d)

# Inputs that reach new code are kept beside the fuzzers for the next run.
$(fuzzers:=.run): %.run: %
	@mkdir -p $*.corpus
	@ASAN_OPTIONS=allow_addr2line=1 $* -max_total_time=$(TIME) -timeout=10 \
		-artifact_prefix=$*- $*.corpus $(wildcard t/fuzz/corpus/$(*F)) \
		>$*.log 2>&1 || { tail -n 50 $*.log; exit 1; }
	@echo "$(*F): $$(tail -n 1 $*.log)"

run:
	t/lib/install-packages $(build_packages) $(run_packages)
	$(MAKE) all
	t/lib/run

# Tests wait for conditions half of the time, hence one more than there are
# processors; the longest comes first.  What they say of failures comes together,
# behind the summary.
test: test-packages
	$(MAKE) all $(BUILD)/unit_tests $(npm_packages)
	prove -j$$(($$(nproc) + 1)) t/unit.t $(filter-out t/unit.t,$(wildcard t/*.t)) \
		2>$(BUILD)/test.log || { cat $(BUILD)/test.log; exit 1; }

# What drives Debian's browser, and the SDKs that are tried.
npm_packages = $(patsubst %,build/%/node_modules/.package-lock.json,browser sdk)

$(npm_packages): build/%/node_modules/.package-lock.json: \
		t/lib/%/package.json t/lib/%/package-lock.json
	@mkdir -p build/$*
	cp $^ build/$*
	cd build/$* && npm ci --ignore-scripts --no-audit --no-fund \
		&& touch node_modules/$(@F) || { [ -z "$$CI" ] && \
			echo 'npm has nothing for us: tests with a $* are skipped'; }

fuzz:
	t/lib/install-packages $(build_packages) $(fuzz_packages)
	$(MAKE) $(fuzzers:=.run)

# SEED=42 prints the steps of one.
simulate: test-packages
	$(MAKE) all $(BUILD)/unit_tests
	SIMULATE_SEED=$(SEED) SIMULATE_SEEDS=$(or $(SEEDS),$(if $(SEED),1,100000)) \
		$(BUILD)/unit_tests --gtest_filter='SimulationTest.*'

# Under valgrind everything takes twenty times as long, so tests that depend on
# time are left out.
valgrind = valgrind -q --error-exitcode=1 --leak-check=full \
	--show-leak-kinds=definite --errors-for-leak-kinds=definite \
	--suppressions=$(CURDIR)/t/lib/valgrind.supp

test-valgrind:
	t/lib/install-packages $(build_packages) $(run_packages) $(test_packages) \
		valgrind
	$(MAKE) all $(BUILD)/unit_tests
	CHATBOT_VALGRIND='$(valgrind)' \
	GTEST_FILTER='-*AtOnce*:*SlowReader*:*LargerThan*' \
		prove t/unit.t t/answer.t t/post.t t/journal.t t/log.t

bench:
	t/lib/install-packages $(build_packages) $(run_packages) wrk \
		libnginx-mod-http-lua nghttp2-client
	$(MAKE) all
	t/bench/hits.pl
	t/bench/misses.pl
	t/bench/flights.pl
	t/bench/bursts.pl
	t/bench/streams.pl

worst:
	t/lib/install-packages $(build_packages) $(run_packages)
	$(MAKE) all
	t/bench/worst.pl

faults:
	t/lib/install-packages $(build_packages) $(run_packages)
	$(MAKE) all
	t/bench/faults.pl

format:
	clang-format -i ngx_http_chatbot_module/*/*.[ch]pp t/unit/*.hpp \
		t/unit/*/*.cpp t/fuzz/*.[ch]pp

clean:
	rm -rf build

# For an installed nginx: README.md, "Adding it to your nginx".
modules_dir = $(or $(patsubst --modules-path=%,%,$(filter \
	--modules-path=%,$(NGINX_CONF_FLAGS))),/usr/lib/nginx/modules)
debian_conf = $(DESTDIR)/etc/nginx/modules-available/mod-http-chatbot.conf
debian_link = $(DESTDIR)/etc/nginx/modules-enabled/50-mod-http-chatbot.conf

install: all
	install -Dm 644 $(module) $(DESTDIR)$(modules_dir)/$(notdir $(module))
	@if [ -d $(dir $(debian_conf)) ] && [ -d $(dir $(debian_link)) ]; then \
		set -x; \
		echo 'load_module $(modules_dir)/$(notdir $(module));' \
			>$(debian_conf); \
		ln -sfn ../modules-available/$(notdir $(debian_conf)) $(debian_link); \
	else \
		echo 'To load it: load_module $(modules_dir)/$(notdir $(module));'; \
	fi

# The package fits the nginx that it was built with, so its version names that.
deb_tree = build/deb
deb_version = $(shell sed -n \
	's/^Changes with [^ ]* *\([^ ]*\).*/\1/p;T;q' CHANGES)+nginx$(version)-1

deb: packages
	$(MAKE) deb-package

deb-package: all
	rm -rf $(deb_tree) build/libnginx-mod-http-chatbot_*
	mkdir -p $(deb_tree)
	cp -r docker/debian docker/html README.md CHANGES $(deb_tree)
	cp LICENSE $(deb_tree)/debian/copyright
	printf '%s (%s) unstable; urgency=medium\n\n  * %s\n\n -- %s  %s\n' \
		libnginx-mod-http-chatbot '$(deb_version)' 'See CHANGES.' \
		"$$(sed -n 's/^Maintainer: //p' docker/debian/control)" \
		"$$(date -R -r CHANGES)" >$(deb_tree)/debian/changelog
	+cd $(deb_tree) && dpkg-buildpackage -b -d -us -uc
	@ls build/libnginx-mod-http-chatbot_$(deb_version)_*.deb

packages:
	t/lib/install-packages $(build_packages) dpkg-dev

test-packages:
	t/lib/install-packages $(build_packages) $(run_packages) $(test_packages)

test-docker:
	prove -v t/docker

.PHONY: all help run test test-valgrind simulate fuzz bench worst faults format
.PHONY: clean FORCE install deb packages test-packages test-docker
