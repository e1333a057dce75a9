// Forms under arbitrary bytes: the first byte says how long the Content-Type is, the rest is the body. What is read is within the
// body, in order, and free of the boundary.
#include <cstdlib>

#include "services/http/multipart.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace runahead;
  if (size == 0) return 0;
  std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t type_bytes = std::min<size_t>(data[0] % 80, input.size());
  const std::string type = type_bytes == 0
                               ? "multipart/form-data; boundary=XX"
                               : "multipart/form-data; boundary=" + std::string(input.substr(0, type_bytes));
  const std::string_view body = input.substr(type_bytes);
  const auto parts = parse_form(type, body);
  if (!parts) {
    require(parts.error().code == ErrorCode::kInvalidArgument && !parts.error().message.empty());
    return 0;
  }
  require(parts->size() <= kFormPartsMax);
  const char* end = body.data();
  for (const FormPart& part : *parts) {
    require(!part.name.empty());
    if (part.content.empty()) continue;
    require(part.content.data() >= end && part.content.data() + part.content.size() <= body.data() + body.size());
    end = part.content.data() + part.content.size();
    if (type_bytes == 0) require(part.content.find("\r\n--XX") == std::string_view::npos);
  }
  return 0;
}
