# Our objects are C++, nginx's flags are C's: NULL at the end of a table leaves
# members out, and nginx's tables take offsetof() of anything.  nginx puts the
# objects of FOLDER/FILE.cpp into addon/FOLDER.

for ngx_dir in $ngx_addon_dir/ngx_http_chatbot_module/*/
do
    ngx_dir=$NGX_OBJS/addon/`basename $ngx_dir`

    cat << END >> $NGX_MAKEFILE

$ngx_dir/%.o: CFLAGS += -std=c++20 \
	-Wextra -Wno-missing-field-initializers \
	-I $ngx_addon_dir/ngx_http_chatbot_module \
	-fvisibility=hidden -MMD -MP $ngx_chatbot_cflags

-include $ngx_dir/*.d

END
done
