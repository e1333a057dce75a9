#include "services/commands/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json_text.h"

namespace runahead {
namespace {

bool printed = false;
int write_errno = 0;  // of the first write that failed

}  // namespace

void print_json(const nlohmann::json& object) {
  printed = true;
  print_text(to_text(object) + "\n");
}

bool json_was_printed() { return printed; }

bool print_text(std::string_view text) {
  if (write_errno != 0) return false;
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return true;
  write_errno = errno;
  return false;
}

Result<void> finish_output() {
  errno = 0;
  if (std::fflush(stdout) != 0 && write_errno == 0) write_errno = errno;
  if (write_errno == 0 && std::ferror(stdout) == 0) return {};
  return fail(ErrorCode::kInternal,
              std::string("the output cannot be written: ") + std::strerror(write_errno ? write_errno : EIO));
}

}  // namespace runahead
