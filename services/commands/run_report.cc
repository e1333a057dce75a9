#include "services/commands/run_report.h"

#include <fmt/format.h>

#include "actors/ttft.h"

namespace runahead {
namespace {

std::string with_commas(int n) {
  std::string digits = std::to_string(n);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), ",");
  return digits;
}

double number(const nlohmann::json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_number() ? object[key].get<double>() : 0;
}

}  // namespace

nlohmann::json to_json(const RunReport& report) {
  const nlohmann::json& r = report.runahead;
  return {{"text", report.text},
          {"token_ids", report.token_ids},
          {"prompt_tokens", report.prompt_tokens},
          {"ttft_seconds", number(r, "ttft_seconds")},
          {"total_seconds", report.total_seconds},
          {"stages", r.value("stages", nlohmann::json::object())},
          {"workers", r.value("workers", nlohmann::json::array())},
          {"plan", r.value("plan", nlohmann::json::object())},
          {"first_logits_sha256", r.value("first_logits_sha256", "")},
          {"compute", r.value("compute", "")},
          {"transport", r.value("transport", "")},
          {"attempts", r.value("attempts", 1)},
          {"finish_reason", report.finish_reason}};
}

std::string summary_line(const RunReport& report) {
  const nlohmann::json& r = report.runahead;
  const nlohmann::json stages = r.value("stages", nlohmann::json::object());
  const double ttft = number(r, "ttft_seconds");
  const size_t workers = r.value("workers", nlohmann::json::array()).size();
  std::string parts;  // by the first word of each stage's name
  for (const TtftStage stage : kTtftStages)
    parts += fmt::format("{}{} {:.2f}", parts.empty() ? "" : " ", name(stage).substr(0, name(stage).find('_')),
                         number(stages, std::string(name(stage)).c_str()));
  std::string line = fmt::format("ttft {:.2f} s measured ({}) · {} token{} · {} worker{}", ttft, parts,
                                 with_commas(report.prompt_tokens), report.prompt_tokens == 1 ? "" : "s", workers,
                                 workers == 1 ? "" : "s");
  const double predicted = number(r.value("plan", nlohmann::json::object()), "predicted_ttft_seconds");
  if (predicted > 0) line += fmt::format(" · the plan predicted {:.2f} s", predicted);
  const double decode_seconds = report.total_seconds - ttft;
  if (report.token_ids.size() > 1 && decode_seconds > 0)
    line += fmt::format(" · {:.0f} tok/s", static_cast<double>(report.token_ids.size() - 1) / decode_seconds);
  return line;
}

}  // namespace runahead
