# Our objects are C++, nginx's flags are C's: NULL at the end of a table leaves
# members out, and nginx's tables take offsetof() of anything.

cat << END >> $NGX_MAKEFILE

$NGX_OBJS/addon/ngx_http_chatbot_module/%.o: CFLAGS += -std=c++20 \
	-Wextra -Wno-missing-field-initializers \
	-fvisibility=hidden -MMD -MP $ngx_chatbot_cflags

-include $NGX_OBJS/addon/ngx_http_chatbot_module/*.d

END
