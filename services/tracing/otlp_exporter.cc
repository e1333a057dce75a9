#include "services/tracing/otlp_exporter.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "base/json_text.h"
#include "base/limits.h"
#include "base/log_limit.h"
#include "services/http/http_client.h"
#include "transport/tcp_socket.h"

namespace runahead {
namespace {

constexpr std::string_view kScheme = "http://";

// As OTLP says which answers are worth a second try.
bool may_pass(int status) { return status == 429 || status == 502 || status == 503 || status == 504; }

// An answer with 200 may say that some spans were not taken; 64-bit numbers come as text.
int64_t rejected_spans(const std::string& body) {
  const auto answer = nlohmann::json::parse(body, nullptr, false);
  if (!answer.is_object() || !answer.contains("partialSuccess") || !answer["partialSuccess"].is_object()) return 0;
  const auto count = answer["partialSuccess"].find("rejectedSpans");
  if (count == answer["partialSuccess"].end()) return 0;
  if (count->is_number_integer()) return count->get<int64_t>();
  if (!count->is_string()) return 0;
  const std::string& text = count->get_ref<const std::string&>();
  int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Result<OtlpEndpoint> parse_otlp_endpoint(const std::string& url) {
  const auto refused = [&](const std::string& why) {
    return fail(ErrorCode::kInvalidArgument,
                "'" + url + "' is no address of a collector: " + why + "; write http://HOST:4318", "otlp-endpoint");
  };
  if (url.starts_with("https://")) return refused("there is no TLS; run a collector beside this process");
  if (!url.starts_with(kScheme)) return refused("it does not begin with http://");
  const std::string rest = url.substr(kScheme.size());
  const size_t slash = rest.find('/');
  std::string path = slash == std::string::npos ? std::string() : rest.substr(slash);
  while (path.ends_with('/')) path.pop_back();
  const bool is_plain =
      std::ranges::all_of(path, [](unsigned char c) { return c > ' ' && c < 0x7f && c != '?' && c != '#'; });
  if (!is_plain) return refused("its path has a character that does not belong there");
  OtlpEndpoint endpoint{.address = rest.substr(0, slash), .target = path + "/v1/traces"};
  if (const auto place = parse_host_port(endpoint.address); !place) return refused(place.error().message);
  return endpoint;
}

OtlpExporter::OtlpExporter(OtlpEndpoint endpoint, OtlpResource resource, uint64_t seed, OtlpSink& sink)
    : endpoint_(std::move(endpoint)), resource_(std::move(resource)), span_ids_(seed), sink_(sink), thread_([this] {
        serve();
      }) {}

OtlpExporter::~OtlpExporter() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void OtlpExporter::request_ended(std::shared_ptr<const TracedRequest> request) {
  if (!request->trace.sampled) return;
  bool full = false;
  {
    std::lock_guard lock(mutex_);
    full = queue_.size() >= limits::kTracedRequestsMax;
    if (!full) queue_.push_back(std::move(request));
  }
  if (full) return sink_.requests_dropped(1);
  changed_.notify_one();
}

// A batch goes when it is full, or when its first request has waited for kTraceBatchWait.
void OtlpExporter::serve() {
  for (bool last = false; !last;) {
    Batch batch;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      changed_.wait_for(lock, limits::kTraceBatchWait,
                        [this] { return stopping_ || queue_.size() >= limits::kTraceBatchRequests; });
      last = stopping_;
      const size_t count = std::min(queue_.size(), limits::kTraceBatchRequests);
      batch.assign(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count));
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count));
    }
    if (!batch.empty()) send(std::move(batch));
  }
  std::lock_guard lock(mutex_);
  if (!queue_.empty()) sink_.requests_dropped(std::ssize(queue_));
}

void OtlpExporter::send(Batch batch) {
  const std::vector<std::shared_ptr<const TracedRequest>> requests(batch.begin(), batch.end());
  const OtlpBatch made = otlp_batch(resource_, requests, span_ids_);
  const std::string body = to_text(made.body);
  bool again = false;
  bool taken = post(body, again);
  if (!taken && again) {
    std::unique_lock lock(mutex_);
    if (!stopping_) changed_.wait_for(lock, limits::kTraceRetryPause, [this] { return stopping_; });
    lock.unlock();
    taken = post(body, again);
  }
  if (taken) sink_.spans_sent(made.spans);
  else sink_.requests_dropped(std::ssize(requests));
}

bool OtlpExporter::post(const std::string& body, bool& again) const {
  const Result<HttpAnswer> answer =
      HttpClient(endpoint_.address, limits::kTraceExchangeTimeout).post(endpoint_.target, body);
  again = !answer || may_pass(answer->status);
  if (!answer) {
    warn_limited("otlp", "no trace has reached the collector: {}", answer.error().message);
    return false;
  }
  if (answer->status < 200 || answer->status > 299) {
    warn_limited("otlp", "the collector at {} refuses traces with status {}", endpoint_.address, answer->status);
    return false;
  }
  if (const int64_t rejected = rejected_spans(answer->body); rejected > 0)
    warn_limited("otlp", "the collector at {} did not take {} spans", endpoint_.address, rejected);
  return true;
}

}  // namespace runahead
