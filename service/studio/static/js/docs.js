// The description of the interface. The key that the studio was given goes with what is tried here.

import { key } from "./api.js";

window.SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).pathname,
  dom_id: "#swagger-ui",
  deepLinking: false,
  validatorUrl: null,
  requestInterceptor(request) {
    if (key.get() && !request.headers.Authorization) request.headers.Authorization = `Bearer ${key.get()}`;
    return request;
  },
});
