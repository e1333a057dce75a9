// RUNAHEAD_CHECK: a broken invariant is a programming error and ends the process, in every build type.
// Expected failures are Result values instead (base/result.h). Not for inner loops.
#pragma once

#include <string_view>

namespace runahead {

// Prints the condition, the place and the message on stderr, then aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line, std::string_view message);

}  // namespace runahead

#define RUNAHEAD_CHECK(condition, message)                                 \
  do {                                                                     \
    if (!(condition)) [[unlikely]]                                         \
      ::runahead::check_failed(#condition, __FILE__, __LINE__, (message)); \
  } while (false)
