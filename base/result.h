// Result<T>: a value or an Error. Every expected failure travels this way; exceptions end before a process serves.
//
//   Result<Gguf> open(path) {
//     MappedFile file = TRY(map_file(path));                       // plain function: returns the error
//     if (file.size() < 24) return fail(ErrorCode::kInvalidModel, "the file ends inside its header");
//   }
//   Task<void> step() {
//     KvLease kv = CO_TRY(pool.lease(n));                          // coroutine, plain call
//     auto sent = co_await transport.send(page); CO_TRY(sent);     // co_await first, then try (GCC 12 crashes otherwise)
//   }
//
// One enum for all of them: each code maps to one HTTP status, one metric label and one exit code (error_code.cc).
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace runahead {

enum class ErrorCode {
  kInvalidArgument,  // a request, flag or config value is wrong: 400, exit 2
  kUnsupported,  // understood, but not built: 400, exit 2
  kContextOverflow,  // prompt + max_tokens over the context length: 400, exit 2
  kTooLarge,  // over a limit of base/limits.h: 413, exit 2
  kUnauthorized,  // 401
  kNotFound,  // file, model, job, route: 404, exit 3
  kInvalidModel,  // the model file is damaged or hostile, or not what we can run: 422, exit 3
  kInvalidConfig,  // configuration file or environment: exit 3
  kAddressInUse,  // a port is taken: exit 3
  kIncompatible,  // another model, compute mode or protocol version: 409, exit 3
  kOverloaded,  // queue or memory is full: 429 with Retry-After
  kUnavailable,  // no worker, draining, cannot reach a peer: 503, exit 4
  kWorkerLost,  // a worker died and no attempt is left: 503, exit 5
  kDeadlineExceeded,  // 504, exit 124
  kCancelled,  // the client went away: 499, exit 130
  kCorrupt,  // a page or frame failed its check: never shown to a client, the attempt is retried
  kStale,  // a message of an older attempt or epoch: dropped in one place
  kKeyReused,  // an Idempotency-Key came again with another request: 422, exit 2
  kInternal,  // 500, exit 1
};

// "invalid_argument", ...: the metric label and the `code` of an OpenAI error.
std::string_view name(ErrorCode code);
int http_status(ErrorCode code);
int exit_code(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one clear sentence that says what to do
  std::string param;  // the flag, field or key that is meant; empty if none
  int retry_after_seconds = 0;  // kOverloaded: a guess at when there is room again; 0: nobody knows
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(ErrorCode code, std::string message, std::string param = {}) {
  return std::unexpected(Error{code, std::move(message), std::move(param)});
}

inline std::unexpected<Error> overloaded(std::string message, int retry_after_seconds) {
  return std::unexpected(Error{ErrorCode::kOverloaded, std::move(message), {}, retry_after_seconds});
}

namespace detail {
template <class T>
T take(Result<T>& result) {
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}
template <class T>
T take(const Result<T>& result) {
  if constexpr (!std::is_void_v<T>) return *result;
}
}  // namespace detail

}  // namespace runahead

// Statement expressions (GCC, clang): the value of `expr`, or return its error from the enclosing function. The value of a
// named Result is moved out of it: use what TRY gives, not the name.
#define TRY(expr)                                             \
  ({                                                          \
    auto&& try_result_ = (expr);                              \
    if (!try_result_) [[unlikely]]                            \
      return std::unexpected(std::move(try_result_).error()); \
    ::runahead::detail::take(try_result_);                    \
  })
#define CO_TRY(expr)                                             \
  ({                                                             \
    auto&& try_result_ = (expr);                                 \
    if (!try_result_) [[unlikely]]                               \
      co_return std::unexpected(std::move(try_result_).error()); \
    ::runahead::detail::take(try_result_);                       \
  })
