#include "services/commands/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json_text.h"
#include "base/utf8.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr int kBarColumns = 10;
constexpr size_t kNameColumns = 20, kIdColumns = 24, kEndedShownMax = 5;
enum class Tone { kPlain, kHead, kGood, kWarn, kBad, kDim };
constexpr std::string_view kToneCodes[] = {"", "\033[1m", "\033[32m", "\033[33m", "\033[31m", "\033[2m"};

std::string bar(double fraction) {
  const int full = std::clamp(static_cast<int>(std::lround(kBarColumns * fraction)), 0, kBarColumns);
  return "[" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(kBarColumns - full), '.') +
         "]";
}

// The first characters of a text, as many as there is room for.
std::string cut(std::string_view text, size_t characters) {
  size_t end = 0;
  for (size_t n = 0; n < characters && end < text.size(); ++n) end += utf8_sequence(text.substr(end)).bytes;
  return std::string(text.substr(0, end));
}

std::string text_of(const json& object, const char* field, size_t characters) {
  const auto found = object.find(field);
  if (found == object.end() || !found->is_string()) return "-";
  return cut(printable_line(found->get<std::string>(), 4 * characters), characters);
}

double number_of(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

json part_of(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_object() ? *found : json::object();
}

json list_of(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_array() ? *found : json::array();
}

std::string time_text(double seconds) {
  return seconds >= 9.95 ? fmt::format("{:.1f} s", seconds)
         : seconds >= 1  ? fmt::format("{:.2f} s", seconds)
                         : fmt::format("{:.0f} ms", seconds * 1e3);
}

class Page {
 public:
  explicit Page(const TopFrame& frame) : frame_(frame) {}
  void line(std::string_view text, Tone tone = Tone::kPlain) {
    if (frame_.rows > 0 && lines_ >= frame_.rows) return;
    ++lines_;
    const bool toned = frame_.colour && tone != Tone::kPlain;
    if (toned) out_ += kToneCodes[static_cast<int>(tone)];
    out_ += cut(text, static_cast<size_t>(std::max(1, frame_.columns)));
    if (toned) out_ += "\033[0m";
    out_ += '\n';
  }
  int room() const { return frame_.rows > 0 ? frame_.rows - lines_ : 1 << 20; }
  std::string take() { return std::move(out_); }

 private:
  const TopFrame& frame_;
  std::string out_;
  int lines_ = 0;
};

Tone tone_of(const std::string& state) {
  if (state == "ready") return Tone::kGood;
  return state == "waiting" || state == "draining" ? Tone::kWarn : Tone::kBad;
}

void add_workers(Page& page, const json& cluster) {
  page.line(fmt::format("{:20} {:8} {:9} {:>4}  {:22} {:>9} {:>10}", "WORKER", "ROLE", "STATE", "LOAD",
                        "K/V PAGES IN USE", "TOKENS/S", "LINK IN"),
            Tone::kHead);
  for (const json& worker : list_of(cluster, "workers")) {
    const double total = number_of(worker, "pages_total"), used = total - number_of(worker, "pages_free");
    const double link = number_of(worker, "link_bytes_per_second");
    const std::string state = text_of(worker, "state", 9);
    page.line(
        fmt::format("{:20} {:8} {:9} {:>4.0f}  {} {:<9} {:>9.0f} {:>10}", text_of(worker, "name", kNameColumns),
                    text_of(worker, "role", 8), state, number_of(worker, "running"), bar(total > 0 ? used / total : 0),
                    fmt::format("{:.0f}/{:.0f}", used, total), number_of(worker, "tokens_per_second"),
                    link > 0 ? fmt::format("{:.3g} MB/s", link / 1e6) : std::string("-")),
        tone_of(state));
  }
}

bool in_work(const json& request) {
  const std::string status = text_of(request, "status", 9);
  return status == "waiting" || status == "prefill" || status == "decode";
}

void add_request(Page& page, const json& request) {
  const std::string status = text_of(request, "status", 9);
  const double fraction = status == "waiting" || status == "prefill"
                              ? number_of(part_of(request, "prefill"), "fraction")
                              : number_of(request, "first_token_seconds") > 0;
  const double first = number_of(request, "first_token_seconds");
  page.line(fmt::format("{:24} {:9} {:>7.0f} {} {:>3.0f} % {:>7.0f} {:>8} {:>8}", text_of(request, "id", kIdColumns),
                        status, number_of(request, "prompt_tokens"), bar(fraction), 100 * fraction,
                        number_of(request, "completion_tokens"), first > 0 ? time_text(first) : "-",
                        time_text(number_of(request, "elapsed_seconds"))),
            status == "failed" ? Tone::kBad
            : in_work(request) ? Tone::kPlain
                               : Tone::kDim);
}

// Those in work, then the last that ended, as far as there is room for the stages below.
void add_requests(Page& page, const json& requests, int rows_below) {
  const json all = list_of(requests, "data");
  std::vector<const json*> shown;
  for (const json& request : all)
    if (in_work(request)) shown.push_back(&request);
  const size_t working = shown.size();
  for (const json& request : all)
    if (!in_work(request) && shown.size() < working + kEndedShownMax) shown.push_back(&request);
  page.line(fmt::format("{:24} {:9} {:>7} {:18} {:>7} {:>8} {:>8}", "REQUEST", "STATUS", "PROMPT", "PREFILL", "ANSWER",
                        "TTFT", "TIME"),
            Tone::kHead);
  if (shown.empty()) page.line("none yet; jobs are listed by `runahead jobs`", Tone::kDim);
  for (size_t i = 0; i < shown.size(); ++i) {
    if (page.room() <= rows_below + 1 && i + 1 < shown.size()) {
      page.line(fmt::format("... {} more", shown.size() - i), Tone::kDim);
      break;
    }
    add_request(page, *shown[i]);
  }
}

struct Stages {
  std::vector<std::pair<std::string, double>> means;  // seconds, the largest first
  size_t answers = 0;
  double ttft = 0;  // mean
};

Stages stages_of(const json& requests) {
  Stages stages;
  for (const json& request : list_of(requests, "data")) {
    const json report = part_of(request, "runahead");
    if (in_work(request) || number_of(report, "ttft_seconds") <= 0) continue;
    ++stages.answers;
    stages.ttft += number_of(report, "ttft_seconds");
    const json parts = part_of(report, "stages");
    for (const auto& [stage, value] : parts.items()) {
      const std::string name = cut(printable_line(stage, 64), 16);
      auto found = std::ranges::find(stages.means, name, &std::pair<std::string, double>::first);
      if (found == stages.means.end()) found = stages.means.emplace(stages.means.end(), name, 0.0);
      if (value.is_number()) found->second += value.get<double>();
    }
  }
  if (stages.answers == 0) return stages;
  stages.ttft /= static_cast<double>(stages.answers);
  for (auto& [name, mean] : stages.means) mean /= static_cast<double>(stages.answers);
  std::ranges::sort(stages.means, std::ranges::greater{}, &std::pair<std::string, double>::second);
  return stages;
}

void add_stages(Page& page, const Stages& stages) {
  if (stages.answers == 0) return page.line("TIME TO FIRST TOKEN  nothing has ended yet", Tone::kHead);
  page.line(fmt::format("TIME TO FIRST TOKEN  {} on average of the last {}; by stage:", time_text(stages.ttft),
                        stages.answers),
            Tone::kHead);
  for (const auto& [name, mean] : stages.means)
    page.line(fmt::format("{:16} {} {:>3.0f} % {:>8}", name, bar(mean / stages.ttft), 100 * mean / stages.ttft,
                          time_text(mean)));
}

}  // namespace

std::string top_text(const json& cluster, const json& requests, const TopFrame& frame) {
  Page page(frame);
  page.line(frame.title, Tone::kHead);
  page.line(fmt::format("{:.0f} running, {:.0f} waiting ({:.0f} prompt tokens); compute {}, context {:.0f}{}",
                        number_of(cluster, "running"), number_of(cluster, "waiting"),
                        number_of(cluster, "queued_prompt_tokens"), text_of(cluster, "compute", 16),
                        number_of(cluster, "context_len"), cluster.value("draining", false) ? "; draining" : ""));
  if (!frame.away.empty()) page.line(printable_line(frame.away, 256), Tone::kBad);
  page.line("");
  add_workers(page, cluster);
  page.line("");
  const Stages stages = stages_of(requests);
  add_requests(page, requests, static_cast<int>(std::min<size_t>(stages.means.size(), 4)) + 2);
  page.line("");
  add_stages(page, stages);
  return page.take();
}

}  // namespace runahead
