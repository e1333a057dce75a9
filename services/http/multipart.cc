#include "services/http/multipart.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/rfc7230.hpp>

#include "services/http/http_target.h"

namespace runahead {
namespace {

namespace beast = boost::beast;

constexpr size_t kBoundaryBytesMax = 70;

std::unexpected<Error> bad(const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "the form cannot be read: " + what);
}

beast::string_view text(std::string_view view) { return {view.data(), view.size()}; }

std::string_view trimmed(std::string_view view) {
  const size_t begin = view.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return view.substr(begin, view.find_last_not_of(" \t") - begin + 1);
}

// Of "form-data; name=\"file\"": the parameter. Once it must be, or it is none.
std::optional<std::string> parameter(std::string_view value, const char* name) {
  const size_t semicolon = value.find(';');
  std::optional<std::string> found;
  if (semicolon == std::string_view::npos) return found;
  for (const auto& param : beast::http::param_list(text(value.substr(semicolon)))) {
    if (!beast::iequals(param.first, name)) continue;
    if (found) return {};
    found = std::string(param.second);
  }
  return found;
}

bool is_token_like(std::string_view boundary) {
  return std::ranges::all_of(boundary, [](unsigned char c) { return c > 0x20 && c < 0x7f && c != '"'; });
}

Result<std::string> boundary_of(std::string_view content_type) {
  const std::optional<std::string> boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > kBoundaryBytesMax || !is_token_like(*boundary))
    return bad("its Content-Type has no boundary of 1 to 70 characters");
  return *boundary;
}

// RFC 5987: utf-8'en'a%20b, which some clients send for names that are not ASCII.
std::string extended_value(std::string_view value) {
  const size_t first = value.find('\''), second = first == std::string_view::npos ? first : value.find('\'', first + 1);
  return second == std::string_view::npos ? std::string(value) : percent_decoded(value.substr(second + 1));
}

Result<void> take_disposition(std::string_view value, FormPart& part) {
  if (!beast::iequals(text(trimmed(value.substr(0, value.find(';')))), "form-data"))
    return bad("the Content-Disposition of a part is not form-data");
  const auto name = parameter(value, "name");
  if (!name || name->empty() || !part.name.empty()) return bad("a part has no name, or two");
  part.name = *name;
  part.filename = parameter(value, "filename");
  if (const auto extended = parameter(value, "filename*")) part.filename = extended_value(*extended);
  return {};
}

Result<FormPart> part_of(std::string_view header, std::string_view content) {
  FormPart part{.content = content};
  while (!header.empty()) {
    const size_t end = std::min(header.find("\r\n"), header.size());
    const std::string_view line = header.substr(0, end);
    header.remove_prefix(std::min(end + 2, header.size()));
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return bad("a header of a part is none");
    const std::string_view name = line.substr(0, colon), value = trimmed(line.substr(colon + 1));
    if (beast::iequals(text(name), "content-disposition")) TRY(take_disposition(value, part));
    const bool is_coding = beast::iequals(text(name), "content-transfer-encoding");
    if (is_coding && !beast::iequals(text(value), "binary") && !beast::iequals(text(value), "8bit") &&
        !beast::iequals(text(value), "7bit"))
      return bad("a part has a Content-Transfer-Encoding; send it as it is");
  }
  if (part.name.empty()) return bad("a part has no name");
  return part;
}

// What is left of the body behind the boundary line at its start; empty: it was the last one.
Result<std::optional<std::string_view>> behind_boundary(std::string_view rest) {
  if (rest.starts_with("--")) return std::optional<std::string_view>();
  const size_t end = rest.find_first_not_of(" \t");
  if (end == std::string_view::npos || rest.substr(end, 2) != "\r\n")
    return bad("its boundary is followed by more on its line, or by nothing");
  return rest.substr(end + 2);
}

}  // namespace

Result<std::vector<FormPart>> parse_form(std::string_view content_type, std::string_view body) {
  const std::string dashes = "--" + TRY(boundary_of(content_type));
  const std::string delimiter = "\r\n" + dashes;
  size_t begin = dashes.size();  // behind the first boundary
  if (!body.starts_with(dashes)) {
    const size_t preamble = body.find(delimiter);
    if (preamble == std::string_view::npos) return bad("its boundary is nowhere in the body");
    begin = preamble + delimiter.size();
  }
  std::vector<FormPart> parts;
  for (;;) {
    const std::optional<std::string_view> rest = TRY(behind_boundary(body.substr(begin)));
    if (!rest) return parts;
    if (parts.size() == kFormPartsMax) return bad("it has too many parts");
    const size_t header_end = rest->find("\r\n\r\n");
    if (header_end == std::string_view::npos || header_end > kFormHeaderBytesMax)
      return bad("the header of a part does not end, or is larger than 4 KiB");
    const std::string_view behind = rest->substr(header_end + 2);  // with the line's end before an empty content
    const size_t end = behind.find(delimiter);
    if (end == std::string_view::npos) return bad("it ends before its last boundary");
    const std::string_view content = end == 0 ? std::string_view() : behind.substr(2, end - 2);
    parts.push_back(TRY(part_of(rest->substr(0, header_end), content)));
    begin = static_cast<size_t>(behind.data() - body.data()) + end + delimiter.size();
  }
}

}  // namespace runahead
