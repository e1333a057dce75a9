// The coordinator's metrics under vLLM's names beside their own, for dashboards, autoscalers and endpoint pickers made for vLLM.
// Nothing is counted twice: each alias is made of our series when the text is asked for. docs/metrics.md has the table.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <vector>

namespace runahead {

// Prometheus' text of our families and of their aliases. vLLM's names have a colon, which promtool's lint does not like.
std::string text_with_vllm_names(std::vector<prometheus::MetricFamily> families);

}  // namespace runahead
