// runahead <command>: the one binary. Each command is one file in services/commands.
#include <fcntl.h>
#include <unistd.h>

#include "services/commands/commands.h"

namespace {

// A standard stream that came closed would be the number of the next file or socket: then logs go into a database. What
// stands there instead refuses to be read or written as the closed one did; stderr swallows.
void reserve_standard_streams() {
  constexpr int kModes[] = {O_WRONLY, O_RDONLY, O_RDWR};
  for (int fd = 0; fd < 3; ++fd)
    if (fcntl(fd, F_GETFD) == -1) (void)!open("/dev/null", kModes[fd]);
}

}  // namespace

int main(int argc, char** argv) {
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
  return line.run(argc, argv);
}
