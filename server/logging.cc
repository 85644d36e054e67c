#include "server/logging.h"

#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mneme {
namespace {

std::string JsonString(const std::string& text) {
  // Replaced rather than thrown on: a log line must come out whatever bytes an id holds.
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool IsPlain(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c > ' ' && c != '"' && c != '=' && c != '\\' && c != '\x7f';
  });
}

// A value as it stands in a line; numbers are the same in both formats.
std::string Format(const LogValue& value, LogFormat format) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return absl::StrCat(*integer);
  if (const auto* number = std::get_if<double>(&value)) return absl::StrFormat("%.3f", *number);
  const std::string& text = std::get<std::string>(value);
  return format == LogFormat::kText && IsPlain(text) ? text : JsonString(text);
}

std::string FormatLine(const std::string& event, const LogFields& fields, LogFormat format) {
  const bool json = format == LogFormat::kJson;
  std::string line = json ? absl::StrCat("\"event\":", JsonString(event)) : event;
  for (const auto& [key, value] : fields) {
    absl::StrAppend(&line, json ? "," : " ", json ? JsonString(key) : key, json ? ":" : "=",
                    Format(value, format));
  }
  return line;
}

}  // namespace

Logger::Logger(spdlog::level::level_enum level, LogFormat format)
    : Logger(level, format, std::make_shared<spdlog::sinks::stderr_sink_mt>()) {}

Logger::Logger(spdlog::level::level_enum level, LogFormat format, spdlog::sink_ptr sink)
    : format_(format), logger_(std::make_unique<spdlog::logger>("mneme", std::move(sink))) {
  logger_->set_pattern(format == LogFormat::kJson
                           ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                           : "%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                       spdlog::pattern_time_type::utc);
  logger_->set_level(level);
  logger_->flush_on(spdlog::level::debug);
}

void Logger::Log(spdlog::level::level_enum level, const std::string& event,
                 const LogFields& fields) const {
  if (!logger_->should_log(level)) return;
  logger_->log(level, spdlog::string_view_t(FormatLine(event, fields, format_)));
}

}  // namespace mneme
