// No validator: it would send the address of this service to somebody else.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null });
