#ifndef MNEME_SERVER_LOGGING_H_
#define MNEME_SERVER_LOGGING_H_

// Structured logs: one line for each event, as `event key=value …` or as a JSON object. Events
// never hold what users wrote or what the model answered.

#include <spdlog/logger.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mneme {

enum class LogFormat : uint8_t { kText, kJson };

using LogValue = std::variant<std::string, int64_t, double>;
using LogFields = std::vector<std::pair<std::string, LogValue>>;

// Writes events. Thread-safe.
class Logger {
 public:
  // To standard error.
  Logger(spdlog::level::level_enum level, LogFormat format);
  // To `sink`.
  Logger(spdlog::level::level_enum level, LogFormat format, spdlog::sink_ptr sink);

  // `event` is a few words, the same for every event of its kind; what varies is in `fields`.
  void Log(spdlog::level::level_enum level, const std::string& event,
           const LogFields& fields = {}) const;
  void Debug(const std::string& event, const LogFields& fields = {}) const {
    Log(spdlog::level::debug, event, fields);
  }
  void Info(const std::string& event, const LogFields& fields = {}) const {
    Log(spdlog::level::info, event, fields);
  }
  void Warn(const std::string& event, const LogFields& fields = {}) const {
    Log(spdlog::level::warn, event, fields);
  }
  void Error(const std::string& event, const LogFields& fields = {}) const {
    Log(spdlog::level::err, event, fields);
  }

 private:
  LogFormat format_;
  std::unique_ptr<spdlog::logger> logger_;
};

}  // namespace mneme

#endif  // MNEME_SERVER_LOGGING_H_
