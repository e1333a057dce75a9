#include "base/result.h"

namespace runahead {
namespace {

struct Row {
  std::string_view name;
  int http_status;
  int exit_code;
};

// In the order of the enum. Exit codes: docs/operations.md.
constexpr Row kRows[] = {
    {"invalid_argument", 400, 2},
    {"unsupported_parameter", 400, 2},
    {"context_length_exceeded", 400, 2},
    {"too_large", 413, 2},
    {"unauthorized", 401, 1},
    {"not_found", 404, 3},
    {"invalid_model", 422, 3},
    {"invalid_config", 500, 3},
    {"address_in_use", 500, 3},
    {"incompatible", 409, 3},
    {"overloaded", 429, 1},
    {"unavailable", 503, 4},
    {"worker_lost", 503, 5},
    {"deadline_exceeded", 504, 124},
    {"cancelled", 499, 130},
    {"corrupt", 500, 1},
    {"stale", 500, 1},
    {"idempotency_key_reused", 422, 2},
    {"internal", 500, 1},
};
static_assert(std::size(kRows) == static_cast<size_t>(ErrorCode::kInternal) + 1);

const Row& row(ErrorCode code) { return kRows[static_cast<size_t>(code)]; }

}  // namespace

std::string_view name(ErrorCode code) { return row(code).name; }
int http_status(ErrorCode code) { return row(code).http_status; }
int exit_code(ErrorCode code) { return row(code).exit_code; }

}  // namespace runahead
