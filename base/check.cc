#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace runahead {

void check_failed(const char* condition, const char* file, int line, std::string_view message) {
  std::fprintf(stderr, "runahead: invariant broken: %s (%.*s) at %s:%d\n", condition, static_cast<int>(message.size()),
               message.data(), file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace runahead
