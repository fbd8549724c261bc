package postman

// collection is the part of Postman's format v2.1 that is used.
type collection struct {
	Info     info       `json:"info"`
	Item     []item     `json:"item"`
	Auth     *auth      `json:"auth"`
	Variable []keyValue `json:"variable"`
}

type info struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Schema      string `json:"schema"`
}

// item is a folder or a call.
type item struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Event       []event    `json:"event,omitempty"`
	Request     *request   `json:"request,omitempty"`
	Response    []response `json:"response,omitempty"`
	Item        []item     `json:"item,omitempty"`
}

type request struct {
	Method      string     `json:"method"`
	Auth        *auth      `json:"auth,omitempty"` // the collection's if nil
	Header      []keyValue `json:"header"`
	Body        *body      `json:"body,omitempty"`
	URL         address    `json:"url"`
	Description string     `json:"description,omitempty"`
}

type auth struct {
	Type   string     `json:"type"`
	Bearer []keyValue `json:"bearer,omitempty"`
}

type keyValue struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	Type        string `json:"type,omitempty"`
	Description string `json:"description,omitempty"`
	Disabled    bool   `json:"disabled,omitempty"`
}

type body struct {
	Mode    string      `json:"mode"`
	Raw     string      `json:"raw"`
	Options bodyOptions `json:"options"`
}

type bodyOptions struct {
	Raw struct {
		Language string `json:"language"`
	} `json:"raw"`
}

type address struct {
	Raw   string     `json:"raw"`
	Host  []string   `json:"host"`
	Path  []string   `json:"path"`
	Query []keyValue `json:"query,omitempty"`
}

type event struct {
	Listen string `json:"listen"`
	Script script `json:"script"`
}

type script struct {
	Type string   `json:"type"`
	Exec []string `json:"exec"`
}

// response is an example response.
type response struct {
	Name     string     `json:"name"`
	Request  *request   `json:"originalRequest"`
	Code     int        `json:"code"`
	Language string     `json:"_postman_previewlanguage"`
	Header   []keyValue `json:"header"`
	Body     string     `json:"body"`
}
