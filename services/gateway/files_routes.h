// /v1/files: POST takes a form with `file` and `purpose` and answers when the file is durable; GET lists or shows; DELETE; GET
// /v1/files/{id}/content streams the bytes. /v1/batches: POST begins one over such a file; GET lists or shows; POST
// /v1/batches/{id}/cancel. What belongs to another key does not exist.
#pragma once

#include "services/gateway/batch_service.h"
#include "services/http/http_router.h"

namespace runahead {

// files, batches: null where the service keeps none; the routes then say so.
void add_files_routes(HttpRouter& router, const GatewayContext& context, FileStore* files, const BatchService* batches);
void add_batches_routes(HttpRouter& router, const GatewayContext& context, BatchService* batches);

}  // namespace runahead
