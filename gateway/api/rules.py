"""What the types of structs cannot say and JSON Schema can: fields that need each other."""

from gateway.api.schemas import Schema, explained

DETAILS = {"card": "cardDetails", "upi": "upiDetails", "netbanking": "netbankingDetails"}


def apply(components: dict[str, Schema]) -> None:
    """Writes the rules into the schemas of the structs that they are about."""
    if "ProcessRequest" in components:
        whole = components["ProcessRequest"]
        names = {method: f"{method.capitalize()}Payment" for method in DETAILS}
        components |= {names[method]: _payment(whole, method, names[method]) for method in DETAILS}
        refs = {method: f"#/components/schemas/{name}" for method, name in names.items()}
        components["ProcessRequest"] = {
            "oneOf": [{"$ref": ref} for ref in refs.values()],
            "discriminator": {"propertyName": "paymentMethod", "mapping": refs},
        }
        components["UpiDetails"] = _upi(components["UpiDetails"])
    if "WebhookBody" in components:
        components["WebhookBody"]["properties"]["id"] = explained("eventID", {"type": "string"})
    if "EventDetail" in components:
        body = components["EventDetail"]["properties"]["body"]
        body["$ref"] = "#/components/schemas/WebhookBody"


def _payment(whole: Schema, method: str, title: str) -> Schema:
    """A request to pay by one method: with its details, without the others'. Only card payments can be captured later, and be in other
    currencies than INR."""
    own = DETAILS[method]
    properties = {name: one for name, one in whole["properties"].items() if name not in DETAILS.values()}
    properties["paymentMethod"] = {"const": method, "description": properties["paymentMethod"]["description"]}
    properties[own] = whole["properties"][own]["anyOf"][0] | {"description": whole["properties"][own]["description"]}
    if method != "card":
        properties["currency"] = properties["currency"] | {"enum": ["INR"]}
        properties["captureMethod"] = properties["captureMethod"] | {"enum": ["automatic"]}
    return whole | {"title": title, "properties": properties, "required": [*whole["required"], own]}


def _upi(whole: Schema) -> Schema:
    """A collect request needs to know whom to ask."""
    flow, vpa = whole["properties"]["flow"], whole["properties"]["vpa"]
    asked = {
        "flow": flow | {"enum": ["collect"]},
        "vpa": {name: one for name, one in vpa.items() if name not in ("anyOf", "default")},
    }
    asked["vpa"] |= vpa["anyOf"][0]
    shown = {"flow": {name: one for name, one in flow.items() if name != "default"} | {"enum": ["intent", "qr"]}, "vpa": vpa}
    return {
        "title": whole["title"],
        "oneOf": [
            whole | {"title": "UpiCollect", "properties": asked, "required": ["vpa"]},
            whole | {"title": "UpiShown", "properties": shown, "required": ["flow"]},
        ],
    }
