# Every third-party library: Debian 12's version, and why we use it. A new one gets its line of reasons here.
# deploy/packages.txt lists the Debian packages; deploy/quickstart.sh installs them.
find_package(Threads REQUIRED)
set(Boost_USE_STATIC_LIBS OFF)              # as all the others
find_package(Boost 1.81 REQUIRED COMPONENTS url stacktrace_backtrace)
                                            # Asio (event loop, TCP, timers, coroutines), Beast (HTTP): the field's standard;
                                            # URL: targets and queries by RFC 3986, percent escapes included; Stacktrace:
                                            # where the event loop stands while it is late, by file and line
find_package(Protobuf 3.21 REQUIRED)        # control messages: typed, versioned, generated parsers
find_package(nlohmann_json 3.11 REQUIRED)   # JSON of the API and the command line
find_package(CLI11 2.1 REQUIRED)            # command line with help and suggestions
find_package(spdlog 1.10 REQUIRED)          # logging to stderr
find_package(fmt REQUIRED)                  # 9.1: formatting, which spdlog brings anyway
find_package(yaml-cpp 0.7 REQUIRED)         # --config FILE
find_package(OpenSSL 3.0 REQUIRED)          # SHA-256; TLS between the processes, by Asio's streams
find_package(SQLite3 3.40 REQUIRED)         # job store: durable, embedded, one file
find_package(prometheus-cpp REQUIRED COMPONENTS core)  # 1.0 (its package names no version): metrics in the text format
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.42)  # pre-tokenizer expressions as the models ship them
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash>=0.8)    # fast 128-bit hash for fingerprints and prefix keys
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)      # 2.8 (its file says 2.6): kinds and case of letters
pkg_check_modules(UCX IMPORTED_TARGET ucx>=1.13)                     # KV pages over shared memory, TCP, RDMA; absent: tcp only
if(RUNAHEAD_BUILD_TESTS)
  find_package(GTest 1.12 REQUIRED)         # tests
                                            # chromium: the page in a real browser; absent: these tests are skipped
endif()

# Asio and Beast are compiled once (base/boost_impl.cc), not in every file that includes them.
add_library(runahead_boost INTERFACE)
target_compile_definitions(runahead_boost INTERFACE BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION
                           BOOST_ASIO_NO_DEPRECATED)
target_link_libraries(runahead_boost INTERFACE Boost::headers OpenSSL::SSL OpenSSL::Crypto Threads::Threads)
