// check_header: what a request's header must not contain, looked at before any parser sees it. Parsers disagree about
// these forms, and disagreement is how requests are smuggled past a proxy (RFC 9112, 11.2).
// Refused: bare CR or LF, NUL, folded lines, more than kHttpHeadersMax fields, Content-Length with Transfer-Encoding or
// twice or not a plain number, a Transfer-Encoding other than "chunked" or in HTTP/1.0, Host missing or twice in HTTP/1.1,
// Authorization or X-Api-Key twice: proxies differ in which of the two they have looked at.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace runahead {

// `header` is everything up to and including the empty line.
Result<void> check_header(std::string_view header);

// Of names and tokens: ASCII letters alone.
std::string lower(std::string_view text);

}  // namespace runahead
