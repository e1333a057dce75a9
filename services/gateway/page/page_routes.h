// GET / and the two files it loads: the page that shows this service to a person. It holds no data, so it needs no key; what
// it asks for does. The files are services/gateway/page/, embedded by CMake.
#pragma once

#include "services/http/http_router.h"

namespace runahead {

void add_page_routes(HttpRouter& router);

}  // namespace runahead
