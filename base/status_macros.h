#ifndef MNEME_BASE_STATUS_MACROS_H_
#define MNEME_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns the status of `expression` from the enclosing function unless it is OK.
#define MNEME_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                     \
    if (absl::Status mneme_status = (expression); !mneme_status.ok()) return mneme_status; \
  } while (false)

// Evaluates a StatusOr; returns its status on error, otherwise moves its value into `lhs`, which
// may declare a variable: MNEME_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
#define MNEME_ASSIGN_OR_RETURN(lhs, expression) \
  MNEME_ASSIGN_OR_RETURN_IMPL_(MNEME_CONCAT_(mneme_status_or_, __LINE__), lhs, expression)

#define MNEME_ASSIGN_OR_RETURN_IMPL_(status_or, lhs, expression) \
  auto status_or = (expression);                                 \
  if (!status_or.ok()) return std::move(status_or).status();     \
  lhs = std::move(status_or).value()

#define MNEME_CONCAT_(a, b) MNEME_CONCAT_INNER_(a, b)
#define MNEME_CONCAT_INNER_(a, b) a##b

#endif  // MNEME_BASE_STATUS_MACROS_H_
