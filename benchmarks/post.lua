-- What wrk sends and tells, for load.py: POSTs of one file, and the outcome as one line of JSON.
-- Arguments: the file, its content type, `keep-alive` or `close`, and the name of a number in each JSON answer whose
-- median is to be told, or nothing.

local threads = {}
told = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  wrk.headers["Content-Type"] = arguments[2]
  if arguments[3] == "close" then
    wrk.headers["Connection"] = "close"
  end
  -- wrk looks at answers only if there is such a function, which takes time.
  if arguments[4] then
    local pattern = '"' .. arguments[4] .. '": *([0-9.]+)'
    function response(status, headers, body)
      told[#told + 1] = tonumber(string.match(body, pattern))
    end
  end
end

local function median(values)
  table.sort(values)
  return values[math.ceil(#values / 2)] or 0
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'outcome {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "bad_status": %d, "broken": %d, "told": %f}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, median(threads[1]:get("told"))))
end
