// runahead <command>: the one binary. Each command is one file in services/commands.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>

#include "base/result.h"
#include "services/commands/commands.h"

namespace {

constexpr char kNoMemory[] =
    "runahead: there is not enough memory; take a smaller model, give less to --kv-memory-mib, or raise the limit\n";

// A standard stream that came closed would be the number of the next file or socket: then logs go into a database. What
// stands there instead refuses to be read or written as the closed one did; stderr swallows.
void reserve_standard_streams() {
  constexpr int kModes[] = {O_WRONLY, O_RDONLY, O_RDWR};
  for (int fd = 0; fd < 3; ++fd)
    if (fcntl(fd, F_GETFD) == -1) (void)!open("/dev/null", kModes[fd]);
}

// What one request needs too much memory for ends that request; what nobody can do without ends the process, in a
// sentence, whatever thread asked for it.
[[noreturn]] void say_and_end() {
  try {
    if (const std::exception_ptr thrown = std::current_exception()) std::rethrow_exception(thrown);
  } catch (const std::bad_alloc&) {
    (void)!write(2, kNoMemory, sizeof(kNoMemory) - 1);
    _exit(runahead::exit_code(runahead::ErrorCode::kUnavailable));
  } catch (...) {
  }
  __gnu_cxx::__verbose_terminate_handler();
  std::abort();
}

}  // namespace

int main(int argc, char** argv) {
  std::set_terminate(say_and_end);
  reserve_standard_streams();
  runahead::CommandLine line;
  add_run(line);
  add_serve(line);
  add_coordinator(line);
  add_prefill(line);
  add_decode(line);
  add_tokenize(line);
  add_logits(line);
  add_perplexity(line);
  add_plan(line);
  add_doctor(line);
  add_bench(line);
  add_client(line);
  add_certs(line);
  add_trace(line);
  add_logs(line);
  add_top(line);
  add_describe(line);
  return line.run(argc, argv);
}
