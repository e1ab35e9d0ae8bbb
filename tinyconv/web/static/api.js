// Requests to the server, and its errors in the page's header.

let tab = null;

export function showError(message) {
  const place = document.getElementById("error");
  place.textContent = message;
  place.hidden = !message;
}

export async function ask(method, path, body) {
  const options = { method, headers: {} };
  if (body instanceof ArrayBuffer) {
    options.headers["Content-Type"] = "application/octet-stream";
    options.body = body;
  } else if (method !== "GET") {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body ?? {});
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server has ended");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer;
}

export async function open() {
  const answer = await ask("POST", "/api/tabs");
  tab = answer.tab;
  return answer.layers;
}

export const address = path => `/api/tabs/${tab}/${path}`;
export const get = path => ask("GET", address(path));
export const post = (path, body) => ask("POST", address(path), body);
export const put = (path, body) => ask("PUT", address(path), body);

// A function whose errors are shown.
export const guarded = action => async (...given) => {
  try {
    showError("");
    return await action(...given);
  } catch (error) {
    showError(error.message);
  }
};
